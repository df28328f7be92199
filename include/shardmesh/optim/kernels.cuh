// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The kernels of the library and those of the optimizers. Include this in one .cu file of a program
// that trains on a device.

#include <shardmesh/memory/cuda/kernels.cuh>
#include <shardmesh/optim/adam_update.hpp>
#include <shardmesh/optim/sgd_update.hpp>

namespace shardmesh {
inline namespace v0 {
namespace cuda {

template cudaError_t launch_for_each(index_t, AdamUpdate const&, cudaStream_t);
template cudaError_t launch_for_each(index_t, SgdUpdate const&, cudaStream_t);

}  // namespace cuda
}  // namespace v0
}  // namespace shardmesh
