// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::distribute: a tensor cannot be cut into partial terms; make partial tensors with from_local}}
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

namespace sm = shardmesh;

using Mesh = sm::DeviceMesh<1, sm::ThreadsCommunicator>;

auto legal(sm::Tensor<float> const& x, Mesh const& mesh) {
  return sm::from_local(x, mesh, sm::placements<sm::Partial<>>);
}

#ifdef EXPECT_ERROR
auto illegal(sm::Tensor<float> const& x, Mesh const& mesh) {
  return sm::distribute(x, mesh, sm::placements<sm::Partial<>>);
}
#endif
