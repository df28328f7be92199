// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The same twenty steps of training, however the model is sharded: losses and final weights are those
// of PyTorch in one process. Bodies for every engine, as those of behaviours.hpp.

#include <cmath>
#include <string>
#include <vector>

#include <shardmesh/fsdp/flat_shard.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/state/full_state_dict.hpp>

#include "behaviours.hpp"
#include "dense_training.hpp"

namespace test {

/// What one training left: the losses on every rank, the full state on rank 0.
struct TrainingResult {
  std::vector<double> losses;
  sm::StateDict state;
};

/// Dense with the initial parameters of the recorded training.
template <class Space>
auto golden_dense() {
  auto model =
      models::dense([](sm::Shape const& shape) { return sm::Tensor<float, Space>(shape); });
  sm::for_each_leaf(model, [](std::string const& name, auto& leaf) {
    leaf = initial_parameter(name, leaf.shape()).template clone<Space>();
  });
  typename Space::Stream{}.synchronize();
  return model;
}

/// Trains a sharded model for as many steps as PyTorch did, where its parameters are.
template <class Space, class Net, class Adam, class Comm>
std::vector<double> train_golden(Net& net, Adam& adam, Comm const& world) {
  models::DenseMath<Space> math;
  std::vector<double> losses;
  for (std::size_t step = 0; step < golden_training().losses.size(); ++step) {
    auto const rows = batch(static_cast<int>(step), world.rank(), world.size());
    net.unshard();
    auto const result = math.loss(net.model(), rows.x, rows.target, rows.rows);
    net.reshard();
    adam.step(net.reduce_gradients(result.gradients));
    double sum = 0;
    for (float loss : sm::all_gather_value(world, result.loss)) {
      sum += static_cast<double>(loss);
    }
    losses.push_back(sum / world.size());
  }
  return losses;
}

template <class Space, class Comm, class Shard>
TrainingResult train_sharded(Comm const& world, Shard const& shard) {
  auto model = golden_dense<Space>();
  auto net = shard(model);
  AdamOf<decltype(net)> adam(net, golden_training().options);
  TrainingResult result{train_golden<Space>(net, adam, world), {}};
  result.state =
      sm::full_state_dict({{"model", sm::state_dict(net)}, {"optim", adam.state_dict()}});
  return result;
}

/// What differs from the recorded training by more than 1e-5 of the value.
inline std::string against_golden(TrainingResult const& result, bool has_state) {
  auto const golden = golden_training();
  for (std::size_t i = 0; i < golden.losses.size(); ++i) {
    if (!(std::abs(result.losses[i] - golden.losses[i]) <= 1e-5 * std::abs(golden.losses[i]))) {
      return "loss of step " + std::to_string(i) + ": " + std::to_string(result.losses[i]) +
             " against " + std::to_string(golden.losses[i]);
    }
  }
  for (auto const& [name, wanted] : golden.weights) {
    if (has_state) {
      auto const* got = result.state.at("model." + name).tensor().template get<HostTensor>();
      if (got == nullptr || !(relative_difference(*got, wanted) <= 1e-5)) {
        return "final " + name;
      }
    }
  }
  return {};
}

/// Every sharding of the world's ranks trains alike, and twice the same bit by bit.
/// @pre the number of ranks divides 12.
template <class Space, class Comm, class Report>
void run_training_rows(Comm const& world, Report&& report) {
  int const n = world.size();
  bool const first = world.rank() == 0;
  auto const check = [&](std::string const& name, auto const& shard) {
    auto const result = train_sharded<Space>(world, shard);
    std::string problem = against_golden(result, first);
    if (problem.empty()) {
      auto const again = train_sharded<Space>(world, shard);
      problem = again.losses == result.losses ? sm::difference(again.state, result.state)
                                              : std::string("losses differ between two runs");
    }
    report("training, " + name, problem);
  };
  check("FSDP " + std::to_string(n), [&](auto& model) {
    return sm::fully_shard(model, sm::device_mesh(world, {n}, {"shard"}));
  });
  check("replicated " + std::to_string(n), [&](auto& model) {
    return sm::fully_shard(model, sm::device_mesh(world, {n, 1}, {"replicate", "shard"}));
  });
  if (n % 2 == 0) {
    check("HSDP 2x" + std::to_string(n / 2), [&](auto& model) {
      return sm::fully_shard(model, sm::device_mesh(world, {2, n / 2}, {"replicate", "shard"}));
    });
    check("HSDP 2x" + std::to_string(n / 2) + " over groups", [&](auto& model) {
      return sm::fully_shard(model, world.split(world.rank() / (n / 2), world.rank()),
                             world.split(world.rank() % (n / 2), world.rank()));
    });
  }
  auto const flat = [&] {
    auto model = golden_dense<Space>();
    auto net = sm::flat_shard(model, sm::device_mesh(world, {n}, {"shard"}));
    AdamOf<decltype(net)> adam(net.parameters(), golden_training().options);
    TrainingResult result{train_golden<Space>(net, adam, world), {}};
    result.state = sm::full_state_dict(sm::StateDict{{"model", net.state_dict()}});
    return against_golden(result, first);
  };
  report("training, flat parameters over " + std::to_string(n), flat());
}

}  // namespace test
