// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include <cuda_runtime_api.h>

#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/kernels.hpp>
#include <shardmesh/memory/cuda/stream.hpp>
#include <shardmesh/memory/host_reduce.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/memory/strided_copy.hpp>

namespace shardmesh::inline v0 {

/// Memory of the device that is current on the calling thread. Allocations come from the device's
/// pool in stream order; copies are copy-engine copies, between devices and with the host too.
struct CudaMemory {
  static constexpr MemoryKind kind = MemoryKind::cuda;
  static constexpr bool host_accessible = false;
  using Stream = CudaStream;
  using Event = CudaEvent;

  /// @returns nullptr for 0 bytes.
  /// @throws DeviceError
  [[nodiscard]] static void* allocate(std::size_t bytes, Stream stream = {}) {
    void* pointer = nullptr;
    if (bytes > 0) {
      cuda::check(cudaMallocAsync(&pointer, bytes, stream.handle), "cudaMallocAsync");
    }
    return pointer;
  }
  static void deallocate(void* pointer, std::size_t, Stream stream = {}) noexcept {
    if (pointer != nullptr) {
      cudaFreeAsync(pointer, stream.handle);  // a failure here has been, or will be, seen elsewhere
    }
  }

  /// One copy for a contiguous box, one 2-D copy for rows, one for each outer index beyond that.
  /// Either side may be host memory; pageable host memory makes the call wait.
  static void copy(StridedCopy const& strided, Stream stream = {}) {
    CollapsedCopy const rows = collapse(strided);
    if (rows.row_bytes == 0) {
      return;
    }
    bool const pitched = !rows.extent.empty() && pitches_fit(rows);
    std::size_t const outer = rows.extent.size() - (pitched ? 1U : 0U);
    for_each_outer(rows, outer, [&](std::byte const* from, std::byte* to) {
      if (pitched) {
        cuda::check(cudaMemcpy2DAsync(to, static_cast<std::size_t>(rows.destination_strides.back()),
                                      from, static_cast<std::size_t>(rows.source_strides.back()),
                                      rows.row_bytes, static_cast<std::size_t>(rows.extent.back()),
                                      cudaMemcpyDefault, stream.handle),
                    "cudaMemcpy2DAsync");
      } else {
        cuda::check(cudaMemcpyAsync(to, from, rows.row_bytes, cudaMemcpyDefault, stream.handle),
                    "cudaMemcpyAsync");
      }
    });
  }

  static void fill_zero(void* pointer, std::size_t bytes, Stream stream = {}) {
    if (bytes > 0) {
      cuda::check(cudaMemsetAsync(pointer, 0, bytes, stream.handle), "cudaMemsetAsync");
    }
  }

  /// @throws InvalidArgument, UnsupportedError as `host_reduce`; UnsupportedError if the program
  ///         has no kernels, or there are more than cuda::max_reduce_terms terms.
  static void reduce(DType dtype,
                     ReduceOp op,
                     void* destination,
                     std::span<void const* const> sources,
                     index_t count,
                     Stream stream = {}) {
    check_reducible(dtype, op);
    if (&cuda::reduce_contiguous == nullptr) {
      throw UnsupportedError("shardmesh: this program was linked without the kernels that reduce on "
                             "a device; include <shardmesh/memory/cuda/kernels.cuh> in one of its "
                             ".cu files");
    }
    if (sources.size() > static_cast<std::size_t>(cuda::max_reduce_terms)) {
      throw UnsupportedError("shardmesh: a reduction of " + std::to_string(sources.size()) +
                             " terms; on a device at most " +
                             std::to_string(cuda::max_reduce_terms) +
                             ", reduce one mesh dimension at a time");
    }
    if (count > 0) {
      cuda::check(cuda::reduce_contiguous(dtype, op, destination, sources.data(),
                                          static_cast<int>(sources.size()), count, stream.handle),
                  "reduce_contiguous");
    }
  }

  [[nodiscard]] static Event make_event() { return {}; }
  static void record(Event& event, Stream stream) {
    cuda::check(cudaEventRecord(event.native_handle(), stream.handle), "cudaEventRecord");
  }
  static void wait(Stream stream, Event const& event) {
    cuda::check(cudaStreamWaitEvent(stream.handle, event.native_handle(), 0),
                "cudaStreamWaitEvent");
  }

 private:
  /// A 2-D copy takes pitches of at least a row.
  [[nodiscard]] static bool pitches_fit(CollapsedCopy const& rows) {
    auto const row = static_cast<index_t>(rows.row_bytes);
    return rows.source_strides.back() >= row && rows.destination_strides.back() >= row;
  }
};

static_assert(MemorySpace<CudaMemory>);

}  // namespace shardmesh::inline v0
