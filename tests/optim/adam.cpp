// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <cmath>
#include <fstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;

namespace {

template <class P>
struct Model {
  P weight;
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
  }
};

sm::Tensor<float> tensor_of(nlohmann::json const& values) {
  return sm::Tensor<float>::from({7, 3}, values.get<std::vector<float>>());
}

double worst(sm::Tensor<float> const& got, nlohmann::json const& wanted) {
  double most = 0;
  for (std::size_t i = 0; i < got.span().size(); ++i) {
    double const value = wanted[i].get<double>();
    most = std::max(most, std::abs(static_cast<double>(got.span()[i]) - value) /
                              std::max(1e-3, std::abs(value)));
  }
  return most;
}

/// Elements whose bits differ.
int differing(sm::Tensor<float> const& got, nlohmann::json const& wanted) {
  int count = 0;
  for (std::size_t i = 0; i < got.span().size(); ++i) {
    count += got.span()[i] != wanted[i].get<float>() ? 1 : 0;
  }
  return count;
}

}  // namespace

TEST_SUITE_BEGIN("optim.adam");

TEST_CASE("adam: 20 steps on shards equal 20 steps of torch.optim.Adam to 1e-6") {
  std::ifstream file(SHARDMESH_TEST_DATA "/adam.json");
  auto const cases = nlohmann::json::parse(file);
  REQUIRE(cases.size() == 2);
  for (auto const& one : cases) {
    sm::launch(sm::threads{3}, [&one](World& world) {
      auto const mesh = sm::device_mesh(world, {3});
      auto const split = [&mesh](nlohmann::json const& values) {
        return sm::distribute(tensor_of(values), mesh, sm::placements<sm::Shard<0>>);
      };
      using P = decltype(split(one));
      Model<P> model{split(one.at("start"))};
      auto const& set = one.at("options");
      auto const betas = set.value("betas", std::vector<double>{0.9, 0.999});
      sm::Adam<P> adam(model, {.lr = set.at("lr"),
                               .beta1 = betas[0],
                               .beta2 = betas[1],
                               .eps = set.value("eps", 1e-8),
                               .weight_decay = set.value("weight_decay", 0.0)});
      for (auto const& gradient : one.at("gradients")) {
        adam.step({split(gradient)});
      }
      auto const state = adam.state_dict();
      CHECK(worst(sm::full_tensor(model.weight), one.at("weight")) < 1e-6);
      auto const moment = [&](char const* name) {
        return sm::full_tensor(*state.at(std::string("state.weight.") + name).tensor().get<P>());
      };
      CHECK(worst(moment("exp_avg"), one.at("exp_avg")) < 1e-6);
      CHECK(worst(moment("exp_avg_sq"), one.at("exp_avg_sq")) < 1e-6);
      int const bits = differing(sm::full_tensor(model.weight), one.at("weight"));
      if (world.rank() == 0) {
        MESSAGE("weights that differ from PyTorch's in any bit: " << bits << " of 21");
      }
      CHECK(state.at("state.weight.step").tensor().get<sm::Tensor<float>>()->span()[0] == 20.0F);
    });
  }
}

TEST_CASE("adam: hyper-parameters go through a state dict") {
  Model<sm::Tensor<float>> model{sm::Tensor<float>::zeros({7, 3})};
  sm::Adam<sm::Tensor<float>> const from(model, {.lr = 0.25, .beta2 = 0.5});
  sm::Adam<sm::Tensor<float>> to(model);
  to.load_options(from.state_dict());
  CHECK(to.options().lr == 0.25);
  CHECK(to.options().beta2 == 0.5);
  sm::StateDict wrong = from.state_dict();
  wrong.set("param_groups.0.amsgrad", true);
  CHECK_THROWS_WITH_AS(to.load_options(wrong), doctest::Contains("amsgrad"), sm::InvalidArgument);
  CHECK_THROWS_AS(to.load_options(sm::StateDict{}), sm::KeyError);
  wrong = from.state_dict();
  wrong.set("param_groups.0.betas", sm::Value::Tuple{{0.5}});
  CHECK_THROWS_WITH_AS(to.load_options(wrong), doctest::Contains("instead of 2"),
                       sm::InvalidArgument);
}

TEST_CASE("adam: gradients that do not fit are refused before anything changes") {
  Model<sm::Tensor<float>> model{sm::Tensor<float>::zeros({7, 3})};
  sm::Adam<sm::Tensor<float>> adam(model);
  CHECK_THROWS_WITH_AS(adam.step({}), doctest::Contains("0 gradients for 1 parameters"),
                       sm::ShapeError);
  CHECK_THROWS_WITH_AS(adam.step({sm::Tensor<float>::zeros({7})}),
                       doctest::Contains("the gradient of \"weight\""), sm::ShapeError);
}

TEST_SUITE_END();
