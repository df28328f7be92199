// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh: Shard<Dim> names a dimension that the tensor has not; Dim counts from 0}}
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

namespace sm = shardmesh;

using Mesh = sm::DeviceMesh<1, sm::ThreadsCommunicator>;

auto legal(sm::Tensor<float> const& x, Mesh const& mesh) {
  return sm::distribute(x, {4, 4}, mesh, sm::placements<sm::Shard<1>>);
}

#ifdef EXPECT_ERROR
auto illegal(sm::Tensor<float> const& x, Mesh const& mesh) {
  return sm::distribute(x, {4, 4}, mesh, sm::placements<sm::Shard<2>>);
}
#endif
