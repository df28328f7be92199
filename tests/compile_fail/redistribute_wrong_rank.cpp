// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::redistribute: source and target must have one placement for each mesh dimension}}
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

namespace sm = shardmesh;

using Mesh = sm::DeviceMesh<2, sm::ThreadsCommunicator>;

using Sharded = sm::DistTensor<float, Mesh, sm::Placements<sm::Replicate, sm::Shard<0>>>;

auto legal(Sharded const& x) {
  return sm::redistribute(x, sm::placements<sm::Replicate, sm::Replicate>);
}

#ifdef EXPECT_ERROR
auto illegal(Sharded const& x) {
  return sm::redistribute(x, sm::placements<sm::Replicate>);
}
#endif
