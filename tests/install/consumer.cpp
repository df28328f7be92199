// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A program of a stranger: shards a tensor over four ranks and puts it together again.
#include <cstdio>
#include <numeric>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

int count_shards();

int main() {
  sm::launch(sm::threads{4}, [](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"replicate", "shard"});
    sm::Tensor<float> whole({7, 5});
    std::iota(whole.span().begin(), whole.span().end(), 0.0F);
    auto const x = sm::distribute(whole, mesh, sm::placements<sm::Replicate, sm::Shard<0>>);
    auto const y = sm::redistribute(x, sm::placements<sm::Shard<1>, sm::Replicate>);
    if (sm::full_tensor(y).span()[34] != 34.0F) {
      throw sm::InvalidArgument("the last element was lost");
    }
  });
  std::printf("consumer: ok, %d shards\n", count_shards());
  return 0;
}
