// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>

#include <cuda_runtime_api.h>

#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/engine_copy.hpp>
#include <shardmesh/memory/cuda/kernels.hpp>
#include <shardmesh/memory/cuda/pinned_memory.hpp>
#include <shardmesh/memory/cuda/stream.hpp>
#include <shardmesh/memory/float_convert.hpp>
#include <shardmesh/memory/host_reduce.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/memory/strided_copy.hpp>

namespace shardmesh {
inline namespace v0 {

namespace cuda {

/// What is wrong where kernels are wanted that the program does not have, and how to mend it.
[[nodiscard]] inline std::string missing_kernels(std::string const& what) {
  return what +
         ": this program was linked without the kernels; include "
         "<shardmesh/memory/cuda/kernels.cuh> in one of its .cu files, and link the object file of "
         "that, not a static library";
}

}  // namespace cuda

/// Memory of the device that is current on the calling thread. Allocations come from the device's
/// pool in stream order; copies are copy-engine copies, between devices and with the host too.
struct CudaMemory {
  static constexpr MemoryKind kind = MemoryKind::cuda;
  static constexpr bool host_accessible = false;
  using Stream = CudaStream;
  using Event = CudaEvent;
  using OwnedStream = CudaOwnedStream;
  /// The host memory that devices copy to at the full speed of their link.
  using HostSide = PinnedMemory;

  /// Makes host memory that this space copies from and to ready for that.
  static void prepare_host() { cuda::pin_host_pool(); }

  /// @returns nullptr for 0 bytes.
  /// @throws DeviceError
  [[nodiscard]] static void* allocate(std::size_t bytes, Stream stream = {}) {
    void* pointer = nullptr;
    prepare_host();
    if (bytes > 0) {
      cuda::check(cudaMallocAsync(&pointer, bytes, stream.handle), "cudaMallocAsync");
    }
    return pointer;
  }
  static void deallocate(void* pointer, std::size_t, Stream stream = {}) noexcept {
    if (pointer != nullptr) {
      // A failure here has been, or will be, seen elsewhere.
      static_cast<void>(cudaFreeAsync(pointer, stream.handle));
    }
  }

  /// Either side may be memory of another device or of the host.
  /// @throws DeviceError
  static void copy(StridedCopy const& strided, Stream stream = {}) {
    engine_copy(collapse(strided), stream);
  }

  /// As `copy`, with both sides in memory of the device that is current: by a kernel where the program has it,
  /// which takes a third of the time of a copy engine to start, and reads and writes faster.
  /// @throws DeviceError
  static void copy_within(StridedCopy const& strided, Stream stream = {}) {
    CollapsedCopy const collapsed = collapse(strided);
    if (&cuda::copy_rows != nullptr) {
      cudaError_t const status = cuda::copy_rows(collapsed, stream.handle);
      if (status != cudaErrorNotSupported) {
        cuda::check(status, "copy_rows");
        return;
      }
    }
    engine_copy(collapsed, stream);
  }

  static void fill_zero(void* pointer, std::size_t bytes, Stream stream = {}) {
    if (bytes > 0) {
      cuda::check(cudaMemsetAsync(pointer, 0, bytes, stream.handle), "cudaMemsetAsync");
    }
  }

  /// Gives the bits of `host_reduce`.
  /// @throws InvalidArgument, UnsupportedError as `host_reduce`; UnsupportedError if the program
  ///   has no kernels, or there are more than cuda::max_reduce_terms terms at different distances;
  ///   DeviceError.
  static void reduce(DType dtype,
                     ReduceOp op,
                     void* destination,
                     std::span<void const* const> sources,
                     index_t count,
                     Stream stream = {}) {
    check_reducible(dtype, op, sources.size());
    if (&cuda::reduce_contiguous == nullptr) {
      throw UnsupportedError(cuda::missing_kernels("shardmesh::CudaMemory::reduce"));
    }
    if (sources.size() > std::size_t{cuda::max_reduce_terms} &&
        cuda::spacing_of(sources.data(), static_cast<int>(sources.size())) == 0) {
      throw UnsupportedError("shardmesh::CudaMemory::reduce: " + std::to_string(sources.size()) +
                             " terms at different distances in memory, a device takes at most " +
                             std::to_string(cuda::max_reduce_terms) +
                             "; lay them down one after the other");
    }
    if (count > 0) {
      cuda::check(cuda::reduce_contiguous(dtype, op, destination, sources.data(),
                                          static_cast<int>(sources.size()), count, stream.handle),
                  "reduce_contiguous");
    }
  }

  /// Gives the bits of `host_convert`.
  /// @throws UnsupportedError as `host_convert`, or if the program has no kernels; DeviceError.
  static void convert(
      DType from, void const* source, DType to, void* target, index_t count, Stream stream = {}) {
    if (&cuda::convert_contiguous == nullptr) {
      throw UnsupportedError(cuda::missing_kernels("shardmesh::CudaMemory::convert"));
    }
    cudaError_t const status =
        cuda::convert_contiguous(from, source, to, target, count, stream.handle);
    if (status == cudaErrorNotSupported) {
      detail::throw_inconvertible(from, to);
    }
    cuda::check(status, "convert_contiguous");
  }

  /// @throws DeviceError
  [[nodiscard]] static OwnedStream make_stream() { return {}; }

  /// @tparam F a function object marked SHARDMESH_HD, whose loop a .cu file of the program
  ///           instantiates, see `cuda::launch_for_each`.
  /// @throws DeviceError
  template <class F>
  static void for_each_index(index_t count, F const& f, Stream stream = {}) {
    static_assert(
        std::is_trivially_copyable_v<F>,
        "shardmesh::CudaMemory::for_each_index: the function object travels to the device "
        "byte by byte; hold addresses and numbers, not containers");
    if (count > 0) {
      cuda::check(cuda::launch_for_each(count, f, stream.handle), "launch_for_each");
    }
  }

  /// Of the calling thread.
  /// @throws DeviceError
  [[nodiscard]] static int current_device() {
    int device = 0;
    cuda::check(cudaGetDevice(&device), "cudaGetDevice");
    return device;
  }
  static void use_device(int device) { cuda::check(cudaSetDevice(device), "cudaSetDevice"); }

  [[nodiscard]] static Event make_event() { return {}; }
  static void record(Event& event, Stream stream) {
    cuda::check(cudaEventRecord(event.native_handle(), stream.handle), "cudaEventRecord");
  }
  static void wait(Stream stream, Event const& event) {
    cuda::check(cudaStreamWaitEvent(stream.handle, event.native_handle(), 0),
                "cudaStreamWaitEvent");
  }
};

static_assert(MemorySpace<CudaMemory>);

}  // namespace v0
}  // namespace shardmesh
