// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/optim/adam_update.hpp>
#include <shardmesh/optim/hyper_parameters.hpp>
#include <shardmesh/optim/optimizer_state.hpp>
#include <shardmesh/optim/sgd.hpp>
#include <shardmesh/optim/sgd_update.hpp>

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

namespace adam_test {

namespace sm = shardmesh;

using Host = sm::Tensor<float>;
using Adam = sm::Adam<Host>;
using AdamW = sm::AdamW<Host>;
using Sgd = sm::Sgd<Host>;

namespace {

std::vector<sm::NamedParameter<Host>> one() {
  return {{"w", Host::zeros({2})}};
}

/// A copy of an optimizer's state with one option replaced.
template <class O>
sm::StateDict with(O const& optimizer, std::string const& key, sm::Value value) {
  sm::StateDict dict = sm::offloaded(optimizer.state_dict());
  dict.set("param_groups.0." + key, std::move(value));
  return dict;
}

/// Loads a state into an optimizer on one rank.
template <class O>
void load(O& optimizer, sm::StateDict const& from) {
  sm::launch(sm::threads{1},
             [&](auto& world) { sm::load_optimizer_state_dict(world, optimizer, from); });
}

}  // namespace

TEST_SUITE_BEGIN("optim.options");

TEST_CASE("options that make no sense are refused, by name") {
  CHECK_THROWS_WITH_AS(Adam(one(), {.lr = -1}), "shardmesh::Adam: lr is -1.0, it must be 0 or more",
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Adam(one(), {.betas = {0.5, 1.0}}),
                       "shardmesh::Adam: betas is 1.0, it must be from 0 to below 1",
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Adam(one(), {.eps = std::numeric_limits<double>::quiet_NaN()}),
                       doctest::Contains("shardmesh::Adam: eps"), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(AdamW(one(), {.weight_decay = -0.5}),
                       doctest::Contains("shardmesh::AdamW: weight_decay is -0.5"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Sgd(one(), {.lr = -1}), doctest::Contains("shardmesh::Sgd: lr"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Sgd(one(), {.momentum = -1}), doctest::Contains("momentum is -1.0"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Sgd(one(), {.weight_decay = -1}), doctest::Contains("weight_decay is -1.0"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Sgd(one(), {.nesterov = true}), doctest::Contains("nesterov needs"),
                       sm::InvalidArgument);
}

TEST_CASE("hyper-parameters of the wrong kind are refused, and nothing is taken over") {
  Adam adam(one(), {.lr = 0.5});
  Host const step = *adam.state_dict().at("state.w.step").tensor().get<Host>();
  step.span()[0] = 3;
  auto const refused = [&](std::string const& key, sm::Value value, char const* why) {
    auto const dict = with(adam, key, std::move(value));
    dict.at("state.w.step").tensor().get<Host>()->span()[0] = 9;
    CHECK_THROWS_WITH_AS(load(adam, dict), doctest::Contains(why), sm::InvalidArgument);
    CHECK(adam.options().lr == 0.5);
    CHECK(step.span()[0] == 3.0F);
  };
  refused("lr", "fast", "\"param_groups.0.lr\" is of the kind str, not a number");
  refused("lr", -0.5, "lr is -0.5");
  refused("betas", sm::Value::Tuple{{0.5}},
          "\"param_groups.0.betas\" holds 1 numbers instead of 2");
  refused("betas", 0.5, "\"param_groups.0.betas\" is of the kind float, not two numbers");
  refused("eps", std::int64_t{1} << 60, "\"param_groups.0.eps\" is 1152921504606846976, which");
  refused("maximize", 2, "\"param_groups.0.maximize\" is 2, of the kind int");
  refused("amsgrad", true,
          "keep exp_avg, exp_avg_sq, max_exp_avg_sq, these keep exp_avg, exp_avg_sq;");
  refused("decoupled_weight_decay", true,
          "\"param_groups.0.decoupled_weight_decay\" is True, this optimizer's False");
  CHECK_THROWS_AS(load(adam, sm::StateDict{}), sm::KeyError);
}

TEST_CASE(
    "integers are numbers, and switches that PyTorch's older versions lack keep their value") {
  Adam adam(one(), {.maximize = true});
  sm::StateDict dict;
  for (sm::StateEntry const& entry : adam.state_dict()) {
    if (entry.is_tensor()) {
      dict.insert(entry.path, entry.value);
    }
  }
  auto const given = [&dict](char const* name, sm::Value value) {
    dict.insert({"param_groups", sm::index_t{0}, name}, std::move(value));
  };
  given("lr", 2);
  given("betas", sm::Value::Tuple{{0, 0.5}});
  given("eps", 1e-6);
  given("weight_decay", 0);
  given("params", sm::Value::List{"w"});
  load(adam, dict);
  CHECK(adam.options().lr == 2.0);
  CHECK(adam.options().betas == std::array<double, 2>{0.0, 0.5});
  CHECK(adam.options().maximize);
}

TEST_CASE("state of AdamW is not taken for Adam's, nor momentum for none") {
  AdamW adamw(one());
  CHECK_THROWS_WITH_AS(load(adamw, Adam(one()).state_dict()),
                       doctest::Contains("is False, this optimizer's True"), sm::InvalidArgument);
  Sgd plain(one());
  sm::StateDict const momentum = with(plain, "momentum", 0.5);
  CHECK_THROWS_WITH_AS(load(plain, momentum),
                       doctest::Contains("keep momentum_buffer, these keep no state"),
                       sm::InvalidArgument);
}

TEST_CASE("a NaN in the second moment stays, and reaches the weight") {
  float weight = 1;
  float const gradient = std::numeric_limits<float>::quiet_NaN();
  float average = 0;
  float square = 0;
  float largest = 4;
  sm::AdamUpdate update{.weight = &weight,
                        .gradient = &gradient,
                        .exp_avg = &average,
                        .exp_avg_sq = &square,
                        .max_exp_avg_sq = &largest,
                        .rate = 0.1F};
  update(0);
  CHECK(std::isnan(weight));
  CHECK(std::isnan(largest));
}

TEST_SUITE_END();

}  // namespace adam_test
