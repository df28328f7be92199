// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A resumed training is the training that was saved, bit by bit, after one load.
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/fsdp/flat_shard.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/optim/optimizer_state.hpp>
#include <shardmesh/optim/sgd.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/load_state_dict.hpp>

#include <functional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "../support/chain_math.hpp"
#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"

namespace resume_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using Mesh = decltype(sm::device_mesh(std::declval<World const&>(), {1}, {"shard"}));
using Model = models::Dense<sm::Tensor<float>>;
using Net = decltype(sm::fully_shard(std::declval<Model&>(), std::declval<Mesh const&>()));
using Parameter = Net::Parameter;

namespace {

/// A sharded model that is trained by an optimizer of two groups, weights and biases, with a schedule.
template <class Options>
class Training {
 public:
  using Optimizer = sm::Optimizer<Parameter, Options>;

  Training(World const& world, Options weights, Options biases, bool flat, unsigned seed)
      : rank_(world.rank()),
        flat_(flat),
        model_(models::dense(test::tensor_maker<sm::HostMemory>(seed))),
        net_(sm::fully_shard(model_, sm::device_mesh(world, {world.size()}, {"shard"}))),
        optimizer_(groups_of(net_, std::move(weights), std::move(biases))) {}
  Training(Training const&) = delete;
  Training& operator=(Training const&) = delete;

  [[nodiscard]] sm::StateDict state() {
    return {{"model", sm::state_dict(net_)},
            {"optim", flat_ ? optimizer_.flattened_state_dict() : optimizer_.state_dict()}};
  }
  [[nodiscard]] Optimizer& optimizer() { return optimizer_; }

  /// Steps `from` to `to`; the schedule multiplies the rates.
  void train(unsigned from, unsigned to) {
    for (unsigned step = from; step < to; ++step) {
      optimizer_.step(gradients(100 * step + static_cast<unsigned>(rank_)));
      for (std::size_t g = 0; g < optimizer_.groups(); ++g) {
        optimizer_.options(g).lr *= 0.75;
      }
    }
  }

 private:
  [[nodiscard]] static std::vector<typename Optimizer::Group> groups_of(Net& net,
                                                                        Options weights,
                                                                        Options biases) {
    std::vector<typename Optimizer::Group> groups{{{}, std::move(weights)},
                                                  {{}, std::move(biases)}};
    for (auto const& one : sm::named_parameters<Parameter>(net)) {
      groups[one.name.ends_with("bias") ? 1 : 0].parameters.push_back(one);
    }
    return groups;
  }

  /// In the order of the optimizer's parameters.
  [[nodiscard]] std::vector<Parameter> gradients(unsigned seed) {
    auto const of_net = test::sharded_gradients<sm::HostMemory>(net_, seed);
    auto const names = sm::named_parameters<Parameter>(net_);
    std::vector<Parameter> ordered;
    for (auto const& one : optimizer_.parameters()) {
      for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i].name == one.name) {
          ordered.push_back(of_net[i]);
        }
      }
    }
    return ordered;
  }

  int rank_;
  bool flat_;
  Model model_;
  Net net_;
  Optimizer optimizer_;
};

/// How a state is saved and loaded again.
struct Way {
  std::string name;
  std::function<void(World&, std::string const&, sm::StateDict const&)> save;
  std::function<void(World&, std::string const&, sm::StateDict&)> load;
};

auto const save = [](World& world, std::string const& to, sm::StateDict const& state) {
  sm::save(world, to, state);
};

std::vector<Way> ways(std::ostringstream& stream, sm::StateDict& kept) {
  return {
      {"load", save,
       [](World& world, std::string const& from, sm::StateDict& state) {
         sm::load(world, from, state);
       }},
      {"load_any", save,
       [](World& world, std::string const& from, sm::StateDict& state) {
         sm::load_any(world, from, state);
       }},
      {"manager",
       [](World& world, std::string const& to, sm::StateDict const& state) {
         sm::CheckpointManager(world, to).save(7, state);
       },
       [](World& world, std::string const& from, sm::StateDict& state) {
         sm::load(world, sm::CheckpointManager(world, from).latest()->path, state);
       }},
      {"in the background",
       [](World& world, std::string const& to, sm::StateDict const& state) {
         sm::AsyncSaver(world).save(to, state).wait();
       },
       [](World& world, std::string const& from, sm::StateDict& state) {
         sm::load(world, from, state);
       }},
      {"stream",
       [&stream](World&, std::string const&, sm::StateDict const& state) {
         sm::save_stream(stream, state);
       },
       [&stream](World&, std::string const&, sm::StateDict& state) {
         std::istringstream in(stream.str());
         sm::load_stream(in, state);
       }},
      {"full state",
       [&kept](World& world, std::string const&, sm::StateDict const& state) {
         kept = sm::full_state_dict(world, state);
       },
       [&kept](World& world, std::string const&, sm::StateDict& state) {
         sm::load_state_dict(world, state, kept,
                             {.full_state_dict = true, .broadcast_from_rank0 = true});
       }},
  };
}

template <class Options>
void resumes(Options weights, Options biases, Options other) {
  test::Scratch const scratch;
  for (int const ranks : {1, 4}) {
    for (bool const flat : {false, true}) {
      for (std::size_t way = 0; way < 6; ++way) {
        std::string const place =
            scratch / (std::to_string(ranks) + (flat ? "f" : "n") + std::to_string(way));
        sm::launch(sm::threads{ranks}, [&](World& world) {
          std::ostringstream stream;
          sm::StateDict kept;
          Way const how = ways(stream, kept)[way];
          INFO(how.name, ", ", ranks, " ranks, ",
               (flat ? std::string("flattened") : std::string("nested")));
          Training<Options> straight(world, weights, biases, flat, 1);
          straight.train(0, 6);
          {
            Training<Options> first(world, weights, biases, flat, 1);
            sm::StateDict const state = first.state();  // taken once, before anything happened
            first.train(0, 3);
            how.save(world, place, state);
          }
          Training<Options> second(world, other, other, flat, 2);
          sm::StateDict state = second.state();
          how.load(world, place, state);
          second.train(3, 6);
          CHECK(sm::difference(second.state(), straight.state()) == "");
          CHECK(sm::difference(state, straight.state()) == "");
          CHECK(second.optimizer().options(0).lr < weights.lr);
        });
      }
    }
  }
}

}  // namespace

TEST_SUITE_BEGIN("checkpoint.resume");

TEST_CASE("Adam goes on as if it had not stopped, whatever it was constructed with") {
  resumes<sm::AdamOptions>({.lr = 0.1, .betas = {0.8, 0.95}, .amsgrad = true},
                           {.lr = 0.3, .eps = 1e-6, .weight_decay = 0.1, .amsgrad = true},
                           {.lr = 5,
                            .betas = {0.1, 0.2},
                            .eps = 1,
                            .weight_decay = 2,
                            .amsgrad = true,
                            .maximize = true});
}

TEST_CASE("AdamW goes on as if it had not stopped") {
  resumes<sm::AdamWOptions>({.lr = 0.01}, {.lr = 0.2, .weight_decay = 0.5}, {.lr = 5});
}

TEST_CASE("SGD goes on as if it had not stopped, its momentum dampened") {
  resumes<sm::SgdOptions>({.lr = 0.1, .momentum = 0.9, .dampening = 0.5},
                          {.lr = 0.05, .momentum = 0.5, .nesterov = true},
                          {.lr = 1, .momentum = 0.1, .weight_decay = 3});
}

TEST_CASE("a load that fails on one rank leaves tensors and options of all as they were") {
  test::Scratch const scratch;
  sm::launch(sm::threads{3}, [&](World& world) {
    sm::SgdOptions const options{.lr = 0.25, .momentum = 0.5};
    Training<sm::SgdOptions> saved(world, options, options, false, 1);
    saved.train(0, 2);
    sm::save(world, scratch / "c", saved.state());
    auto const unchanged = [&](sm::SgdOptions const& mine, char const* here) {
      Training<sm::SgdOptions> other(world, mine, mine, false, 2);
      sm::StateDict const before = sm::offloaded(other.state());
      sm::StateDict state = other.state();
      std::string const text =
          test::error_of<sm::Error>([&] { sm::load(world, scratch / "c", state); });
      INFO(text);
      CHECK(text.find(here) != std::string::npos);
      CHECK(sm::difference(other.state(), before) == "");
    };
    // Rank 1 has another optimizer, without momentum.
    unchanged(
        {.lr = 3, .momentum = world.rank() == 1 ? 0 : 0.25},
        "options (\"optim.param_groups.0.*\") that keep momentum_buffer, these keep no state");
    // Data is damaged: it is read after the options have been found good.
    if (world.rank() == 0) {
      std::string bytes = test::slurp(scratch / "c/__1_0.distcp");
      for (std::size_t i = bytes.size() / 2; i < bytes.size() / 2 + 2000; ++i) {
        bytes[i] = static_cast<char>(bytes[i] ^ 1);
      }
      test::spit(scratch / "c/__1_0.distcp", bytes);
    }
    world.barrier();
    unchanged({.lr = 3, .momentum = 0.25}, "__1_0.distcp");
  });
}

TEST_CASE("flat parameters take over options with their state") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](World& world) {
    auto const mesh = sm::device_mesh(world, {2}, {"shard"});
    using Flat = decltype(sm::flat_shard(std::declval<Model&>(), mesh));
    auto model = models::dense(test::tensor_maker<sm::HostMemory>(1));
    Flat net = sm::flat_shard(model, mesh);
    sm::Sgd<Flat::Parameter> sgd(net.parameters(), {.lr = 0.5, .momentum = 0.9, .dampening = 0.5});
    sgd.carried_options() = {{"initial_lr", 2}};
    auto const step = [&](auto& to, auto& optimizer, unsigned seed) {
      optimizer.step(test::sharded_gradients<sm::HostMemory>(to, seed));
    };
    step(net, sgd, 5);
    sm::save(world, scratch / "c",
             {{"model", net.state_dict()}, {"optim", net.optimizer_state_dict(sgd.state_dict())}});
    auto second = models::dense(test::tensor_maker<sm::HostMemory>(2));
    Flat other = sm::flat_shard(second, mesh);
    sm::Sgd<Flat::Parameter> fresh(other.parameters(), {.lr = 7, .momentum = 0.1});
    sm::StateDict model_state = other.state_dict();
    sm::StateDict optimizer_state = other.optimizer_state_dict(fresh.state_dict());
    CHECK(to_string(optimizer_state.at("param_groups.0.params").plain()).find("net1.0.weight") !=
          std::string::npos);
    sm::StateDict both{{"model", model_state}, {"optim", optimizer_state}};
    sm::load(world, scratch / "c", both);
    CHECK(fresh.options().lr == 0.5);
    other.load_state_dict(model_state);
    other.load_optimizer_state_dict(optimizer_state, fresh.state_dict());
    CHECK(fresh.options().momentum == 0.9);
    CHECK(fresh.carried_options() == sm::Value::Dict{{"initial_lr", 2}});
    step(net, sgd, 9);
    step(other, fresh, 9);
    CHECK(sm::difference(other.state_dict(), net.state_dict()) == "");

    // From a state that is a copy: the options come with the tensors.
    sm::Sgd<Flat::Parameter> third(other.parameters(), {.lr = 7, .momentum = 0.1});
    other.load_optimizer_state_dict(sm::offloaded(net.optimizer_state_dict(sgd.state_dict())),
                                    third.state_dict());
    CHECK(third.options().lr == 0.5);
    CHECK(third.carried_options() == sm::Value::Dict{{"initial_lr", 2}});
  });
}

TEST_SUITE_END();

}  // namespace resume_test
