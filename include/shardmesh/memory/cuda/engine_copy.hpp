// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/stream.hpp>
#include <shardmesh/memory/strided_copy.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// One 3-D copy: the two innermost dimensions of `copy`, from `from` to `to`.
inline void copy_slices(CollapsedCopy const& copy,
                        std::byte const* from,
                        std::byte* to,
                        CudaStream stream) {
  std::size_t const slices = copy.extent.size() - 2;
  std::size_t const rows = slices + 1;
  auto const bytes = [](index_t n) { return static_cast<std::size_t>(n); };
  auto const pitched = [&](std::byte* pointer, Shape const& strides) {
    return cudaPitchedPtr{pointer, bytes(strides[rows]), copy.row_bytes,
                          bytes(strides[slices] / strides[rows])};
  };
  cudaMemcpy3DParms parameters{};
  parameters.srcPtr = pitched(const_cast<std::byte*>(from), copy.source_strides);
  parameters.dstPtr = pitched(to, copy.destination_strides);
  parameters.extent = {copy.row_bytes, bytes(copy.extent[rows]), bytes(copy.extent[slices])};
  parameters.kind = cudaMemcpyDefault;
  cuda::check(cudaMemcpy3DAsync(&parameters, stream.handle), "cudaMemcpy3DAsync");
}

}  // namespace detail

/// Copies a collapsed box with the copy engines: between places of one device, between devices, and
/// from and to host memory. One call moves up to two dimensions of rows; there is one call for each
/// index of the dimensions beyond. Pageable host memory makes the call wait for its part.
/// @param stream orders the copy. Between devices, the stream of the writer starts soonest.
/// @pre source and destination do not overlap.
/// @throws DeviceError
inline void engine_copy(CollapsedCopy const& copy, CudaStream stream = {}) {
  if (copy.row_bytes == 0) {
    return;
  }
  std::size_t const inner = engine_dims(copy);
  for_each_outer(copy, copy.extent.size() - inner, [&](std::byte const* from, std::byte* to) {
    if (inner == 2) {
      detail::copy_slices(copy, from, to, stream);
    } else if (inner == 1) {
      cuda::check(cudaMemcpy2DAsync(to, static_cast<std::size_t>(copy.destination_strides.back()),
                                    from, static_cast<std::size_t>(copy.source_strides.back()),
                                    copy.row_bytes, static_cast<std::size_t>(copy.extent.back()),
                                    cudaMemcpyDefault, stream.handle),
                  "cudaMemcpy2DAsync");
    } else {
      cuda::check(cudaMemcpyAsync(to, from, copy.row_bytes, cudaMemcpyDefault, stream.handle),
                  "cudaMemcpyAsync");
    }
  });
}

}  // namespace v0
}  // namespace shardmesh
