// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The one .cu file that a program needs: the kernels that reduce and train on a device, and the loops
// of the example's own function objects.
#include <shardmesh/optim/kernels.cuh>

#include "dense_kernels.hpp"

namespace shardmesh::cuda {

template cudaError_t launch_for_each(index_t, models::AddBias const&, cudaStream_t);
template cudaError_t launch_for_each(index_t, models::ReluBackward const&, cudaStream_t);
template cudaError_t launch_for_each(index_t, models::ErrorGradient const&, cudaStream_t);
template cudaError_t launch_for_each(index_t, models::ColumnSum const&, cudaStream_t);

}  // namespace shardmesh::cuda
