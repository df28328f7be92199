// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cuda_runtime_api.h>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/reduce_op.hpp>

namespace shardmesh {
inline namespace v0 {
namespace cuda {

/// Most terms of one reduction on a device: their addresses travel as parameters of the launch.
inline constexpr int max_reduce_terms = 256;

/// destination[i] = op over sources[j][i], j ascending, with the bits that `host_reduce` gives.
/// Defined by including <shardmesh/memory/cuda/kernels.cuh> in a .cu file of the program; a program
/// that never reduces on a device needs none. The symbol is weak: its address tells whether it is
/// there, and several definitions are one. Link the object file itself: a weak symbol pulls nothing
/// out of a static library.
/// @param destination `count` elements; may be the first source, must not overlap another.
/// @param sources host array of `terms` device pointers, 1 <= terms <= max_reduce_terms.
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
