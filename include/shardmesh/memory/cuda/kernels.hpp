// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cuda_runtime_api.h>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/reduce_op.hpp>

namespace shardmesh::inline v0::cuda {

/// Most terms of one reduction on a device.
inline constexpr int max_reduce_terms = 256;

/// destination[i] = op over sources[j][i], j ascending, with the bits that the host would give.
/// Defined by including <shardmesh/memory/cuda/kernels.cuh> in a .cu file of the program; a program
/// that never reduces on a device needs none. The symbol is weak: its address tells whether it is
/// there.
/// @param sources host array of `terms` device pointers, 1 <= terms <= max_reduce_terms.
/// @returns the status of the launch.
__attribute__((weak)) cudaError_t reduce_contiguous(DType dtype,
                                                    ReduceOp op,
                                                    void* destination,
                                                    void const* const* sources,
                                                    int terms,
                                                    index_t count,
                                                    cudaStream_t stream);

}  // namespace shardmesh::inline v0::cuda
