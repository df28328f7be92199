// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::redistribute: a Partial target placement is legal only where the source has the same one; reduce to Shard or Replicate instead}}
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

namespace sm = shardmesh;

using Mesh = sm::DeviceMesh<2, sm::ThreadsCommunicator>;

using Sharded = sm::DistTensor<float, Mesh, sm::Placements<sm::Replicate, sm::Shard<0>>>;

auto legal(Sharded const& x) {
  return sm::redistribute(x, sm::placements<sm::Shard<1>, sm::Replicate>);
}

#ifdef EXPECT_ERROR
auto illegal(Sharded const& x) {
  return sm::redistribute(x, sm::placements<sm::Partial<>, sm::Shard<0>>);
}
#endif
