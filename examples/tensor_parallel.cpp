// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// Tensor parallelism and FSDP at once, on 2 x 2 ranks: "tp" cuts a feed-forward block by its hidden
// numbers, so that each rank computes with half of it; "shard" cuts what a rank then has once more,
// so that it keeps a quarter. The losses are those of one rank that has everything.
#include <array>
#include <cmath>
#include <cstdio>

#include <shardmesh/shardmesh.hpp>

#include "support/feed_forward.hpp"

namespace sm = shardmesh;

namespace {

constexpr int steps = 40;

/// Trains on a mesh ("shard", "tp"), with two vectors in each step.
/// @returns the last loss.
template <class Mesh>
float train(Mesh const& mesh) {
  ff::Block model = ff::initialised();
  sm::TensorParallel const cut{.plan = {{"up", sm::Shard{0}}, {"down", sm::Shard{1}}}};
  auto net = sm::fully_shard(model, mesh, cut, {.gradients = sm::ReduceOp::sum});
  sm::Adam<typename decltype(net)::Parameter> adam(net, {.lr = 0.02});
  auto const tp = mesh["tp"];
  auto const sum_over_tp = [&](sm::Tensor<float> const& terms) {
    auto const y = sm::from_local(terms, tp, sm::placements<sm::Partial<>>);
    return sm::redistribute(y, sm::placements<sm::Replicate>).to_local();
  };
  float loss = 0;
  for (int step = 0; step < steps; ++step) {
    net.unshard();  // model has this rank's rows and columns
    ff::Block gradients{sm::Tensor<float>::zeros(model.up.shape()),
                        sm::Tensor<float>::zeros(model.down.shape())};
    float mine = 0;
    for (auto i = mesh.coordinate()[0]; i < 2; i += mesh.shape()[0]) {
      mine += ff::learn(model, ff::input(2 * step + static_cast<int>(i)), sum_over_tp, gradients);
    }
    net.reshard();
    adam.step(net.reduce_gradients(gradients));
    loss = 0;
    for (float const of_rank : sm::all_gather_value(mesh.group("shard"), mine)) {
      loss += of_rank;
    }
    if (mesh.comm().rank() == 0 && step % 10 == 0) {
      std::printf("step %2d  loss %.5f\n", step, double{loss});
    }
  }
  if (mesh.comm().rank() == 0) {
    std::printf("step %2d  loss %.5f\n%s", steps, double{loss},
                sm::to_string(sm::state_dict(net)).c_str());
  }
  return loss;
}

}  // namespace

int main() {
  std::array<float, 2> losses{};
  for (int const n : {1, 2}) {
    sm::launch(sm::threads{n * n}, [&](auto& world) {
      float const last = train(sm::device_mesh(world, {n, n}, {"shard", "tp"}));
      if (world.rank() == 0) {
        losses[static_cast<std::size_t>(n - 1)] = last;
      }
    });
  }
  // They add in another order, so that the last digits differ.
  return std::abs(losses[0] - losses[1]) < 1e-4F && losses[1] < 1 ? 0 : 1;
}
