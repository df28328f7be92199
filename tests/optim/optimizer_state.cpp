// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/optim/optimizer_state.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "../support/chain_math.hpp"
#include "../support/errors.hpp"

namespace optimizer_state_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using Space = sm::HostMemory;

TEST_SUITE_BEGIN("optim.optimizer_state");

TEST_CASE("an optimizer's state travels in either form, renamed, full or sharded, and comes back") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {3}, {"shard"});
    auto model = models::dense(test::tensor_maker<Space>(1));
    auto net = sm::fully_shard(model, mesh);
    sm::Adam<decltype(net)::Parameter> adam(net, {.lr = 0.25, .eps = 1e-6});
    adam.step(test::sharded_gradients<Space>(net, 3 + static_cast<unsigned>(world.rank())));
    for (bool flat : {false, true}) {
      for (bool full : {false, true}) {
        sm::StateOptions const options{.full_state_dict = full,
                                       .cpu_offload = true,
                                       .broadcast_from_rank0 = full,
                                       .flatten_optimizer_state_dict = flat,
                                       .renames = {{"net1", "encoder"}}};
        sm::StateDict const state = sm::optimizer_state_dict(world, adam, options);
        CHECK(state.empty() == (full && world.rank() != 0));
        if (!state.empty()) {
          CHECK(state.contains("state.encoder.0.weight.exp_avg"));
          CHECK(!state.contains("state.net1.0.weight.exp_avg"));
          CHECK(state.at("state.net2.0.bias.step").tensor().shape() == sm::Shape{});
          CHECK(state.contains(flat ? "param_groups.encoder.0.weight.lr" : "param_groups.0.lr"));
          CHECK(state.at("state.net2.0.bias.exp_avg").tensor().is_distributed() == !full);
          CHECK(state.begin()->path.size() == (flat ? 1U : 3U));
        }
        auto second = models::dense(test::tensor_maker<Space>(1));
        auto other_net = sm::fully_shard(second, mesh);
        sm::Adam<decltype(net)::Parameter> other(other_net, {.lr = 0.5});
        auto const report = sm::load_optimizer_state_dict(world, other, state, options);
        CHECK(report.missing.empty());
        CHECK(other.options().lr == 0.25);
        CHECK(other.options().eps == 1e-6);
        CHECK(sm::difference(other.state_dict(), adam.state_dict()) == "");
      }
    }
  });
}

TEST_CASE("a full state needs a communicator; without options the state is the optimizer's own") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto model = models::mlp(2, test::tensor_maker<Space>(1));
    auto net = sm::fully_shard(model, sm::device_mesh(world, {2}, {"shard"}));
    sm::Adam<decltype(net)::Parameter> adam(net);
    CHECK(sm::difference(sm::optimizer_state_dict(adam), adam.state_dict()) == "");
    CHECK(sm::optimizer_state_dict(adam).at("state.in_proj.weight.exp_avg").tensor().data() ==
          adam.state_dict().at("state.in_proj.weight.exp_avg").tensor().data());
    CHECK(sm::difference(sm::optimizer_state_dict(adam, {.flatten_optimizer_state_dict = true}),
                         adam.flattened_state_dict()) == "");
    auto const text = test::error_of<sm::InvalidArgument>(
        [&] { static_cast<void>(sm::optimizer_state_dict(adam, {.full_state_dict = true})); });
    CHECK(text.find("optimizer_state_dict(world, optimizer, options)") != std::string::npos);
    auto const missing = test::error_of<sm::KeyError>([&] {
      sm::load_optimizer_state_dict(world, adam, adam.state_dict(),
                                    {.renames = {{"in_proj", "encoder"}}});
    });
    CHECK(missing.find("\"state.encoder.weight.step\"") != std::string::npos);
    CHECK(missing.find("no group of the state has the parameter \"encoder.weight\"") !=
          std::string::npos);
  });
}

TEST_SUITE_END();

}  // namespace optimizer_state_test
