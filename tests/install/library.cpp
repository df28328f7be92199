// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A shared library whose symbols are hidden, but one.
#include <numeric>

#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

[[gnu::visibility("default")]] float last_element(int failing_rank);

/// Shards a tensor over four ranks; the last one says what its last element is. A rank above 0 can be told to fail.
float last_element(int failing_rank) {
  float last = 0;
  sm::launch(sm::threads{4}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"replicate", "shard"});
    sm::Tensor<float> whole({7, 5});
    std::iota(whole.span().begin(), whole.span().end(), 0.0F);
    if (failing_rank > 0 && world.rank() == failing_rank) {
      throw sm::InvalidArgument("rank 2 was to fail");
    }
    auto const x = sm::distribute(whole, mesh, sm::placements<sm::Replicate, sm::Shard<0>>);
    if (world.rank() == 3) {
      last = x.to_local().span().back();
    }
  });
  return last;
}
