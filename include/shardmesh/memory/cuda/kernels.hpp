// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/reduce_op.hpp>
#include <shardmesh/memory/strided_copy.hpp>

namespace shardmesh {
inline namespace v0 {
namespace cuda {

/// Most terms of one reduction on a device whose addresses follow no rule: they travel as parameters of
/// the launch. Terms at equal distances, as an exchange lays them down, may be any number.
inline constexpr int max_reduce_terms = 256;

/// The distance from each source to the next in bytes; 0 if it is not always the same.
[[nodiscard]] inline std::ptrdiff_t spacing_of(void const* const* sources, int terms) {
  auto const address = [sources](int j) { return reinterpret_cast<std::intptr_t>(sources[j]); };
  std::intptr_t const spacing = terms > 1 ? address(1) - address(0) : 0;
  for (int j = 2; j < terms; ++j) {
    if (address(j) - address(j - 1) != spacing) {
      return 0;
    }
  }
  return spacing;
}

/// destination[i] = op over sources[j][i], j ascending, with the bits that `host_reduce` gives.
/// Defined by including <shardmesh/memory/cuda/kernels.cuh> in a .cu file of the program; a program
/// that never reduces on a device needs none. The symbol is weak: its address tells whether it is
/// there, and several definitions are one. Link the object file itself: a weak symbol pulls nothing
/// out of a static library.
/// @param destination `count` elements; may be the first source, must not overlap another.
/// @param sources host array of `terms` device pointers, 1 <= terms; more than max_reduce_terms only at
///                equal distances.
/// @param count elements, >= 0.
/// @returns the status of the launch; cudaErrorNotSupported for float8_e8m0fnu.
__attribute__((weak)) cudaError_t reduce_contiguous(DType dtype,
                                                    ReduceOp op,
                                                    void* destination,
                                                    void const* const* sources,
                                                    int terms,
                                                    index_t count,
                                                    cudaStream_t stream);

/// target[i] = source[i] as another element type, with the bits that `host_convert` gives. Defined as
/// `reduce_contiguous` is.
/// @param count elements, >= 0; source and target must not overlap.
/// @returns the status of the launch; cudaErrorNotSupported for types that do not convert.
__attribute__((weak)) cudaError_t convert_contiguous(
    DType from, void const* source, DType to, void* target, index_t count, cudaStream_t stream);

/// A copy within the memory of the device that is current. Defined as `reduce_contiguous` is.
/// @returns the status of the launch; cudaErrorNotSupported for more than two dimensions of rows, for rows that are not
///          whole numbers of 4 bytes at such addresses, and for 2^32 units of 4, 8 or 16 bytes: copy engines do those.
__attribute__((weak)) cudaError_t copy_rows(CollapsedCopy const& copy, cudaStream_t stream);

/// Calls f(i) on the device for 0 <= i < count, in any order. Defined in
/// <shardmesh/memory/cuda/kernels.cuh>. Where the linker misses it for some F, a .cu file of the program
/// must instantiate it: <shardmesh/optim/kernels.cuh> does for the optimizers; for a function object
/// of your own write there, after including kernels.cuh,
///
///     template cudaError_t shardmesh::cuda::launch_for_each(shardmesh::index_t, F const&, cudaStream_t);
///
/// @param count elements, > 0.
/// @returns the status of the launch.
template <class F>
cudaError_t launch_for_each(index_t count, F const& f, cudaStream_t stream);

}  // namespace cuda
}  // namespace v0
}  // namespace shardmesh
