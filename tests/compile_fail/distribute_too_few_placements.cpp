// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh: there must be one placement for each dimension of the mesh; add Replicate for the dimensions that do not cut the tensor}}
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

namespace sm = shardmesh;

using Mesh = sm::DeviceMesh<2, sm::ThreadsCommunicator>;

auto legal(sm::Tensor<float> const& x, Mesh const& mesh) {
  return sm::distribute(x, mesh, sm::placements<sm::Replicate, sm::Shard<0>>);
}

#ifdef EXPECT_ERROR
auto illegal(sm::Tensor<float> const& x, Mesh const& mesh) {
  return sm::distribute(x, mesh, sm::placements<sm::Shard<0>>);
}
#endif
