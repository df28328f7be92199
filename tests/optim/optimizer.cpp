// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/optim/optimizer.hpp>
#include <shardmesh/optim/parameter_groups.hpp>
#include <shardmesh/optim/sgd.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/sharded_tensor.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "../support/optimizers.hpp"

namespace optimizer_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using Host = sm::Tensor<float>;

namespace {

/// A plain parameter; what of the data is made of it is new each time.
Host whole(Host const& tensor) {
  return tensor;
}

/// Shards over the ranks of a mesh: of 7 and of 2 rows over 3 ranks, the last bias is empty.
auto on_mesh(World const& world) {
  return [mesh = sm::device_mesh(world, {world.size()})](Host const& tensor) {
    return sm::distribute(tensor, mesh, sm::placements<sm::Shard<0>>);
  };
}

/// The same without a mesh, over a pair of communicators.
auto on_pair(World const& world, int shards) {
  World const shard = world.split(world.rank() / shards, world.rank());
  World const replicate = world.split(world.rank() % shards, world.rank());
  return [shard, replicate](Host const& tensor) {
    auto const mesh = sm::device_mesh(shard, {shard.size()});
    auto const part = sm::distribute(tensor, mesh, sm::placements<sm::Shard<0>>);
    return sm::ShardedTensor<float, World>(shard, replicate, tensor.shape(), part.to_local());
  };
}

template <class Place>
test::Deviation worst_of_all_cases(nlohmann::json const& data, Place const& place) {
  test::Deviation worst;
  for (auto const& one : data.at("cases")) {
    auto const deviation = test::with_options_of(one.at("optimizer"), [&]<class O>(O) {
      return test::deviation_from_torch<O>(data, one, place);
    });
    INFO(one.at("optimizer"), " ", one.at("groups").dump());
    CHECK(deviation.worst < 1e-6);
    worst.worst = std::max(worst.worst, deviation.worst);
    worst.differing += deviation.differing;
    worst.elements += deviation.elements;
  }
  return worst;
}

template <class P>
struct Layer {
  P weight, bias;
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }
};

/// Two layers with one weight, a frozen member, a buffer, and a tensor of another type.
struct Tied {
  Host shared = Host::zeros({2, 3});
  Layer<Host> first{shared, Host::zeros({2})};
  Layer<Host> second{shared, Host::zeros({2})};
  Host fixed = Host::zeros({4});
  Host mean = Host::zeros({4});
  sm::Tensor<double> other = sm::Tensor<double>::zeros({1});
  template <class V>
  void visit(V&& v) {
    v("first", first);
    v("second", second);
    v("fixed", sm::frozen(fixed));
    v("mean", sm::buffer(mean));
    v("other", other);
  }
};

template <class Parameters>
std::string names_of(Parameters const& parameters) {
  std::string text;
  for (auto const& one : parameters) {
    text += (text.empty() ? "" : " ") + one.name;
  }
  return text;
}

std::string keys_of(sm::StateDict const& dict) {
  std::string text;
  for (sm::StateEntry const& entry : dict) {
    text += (text.empty() ? "" : " ") + entry.key;
  }
  return text;
}

std::vector<sm::NamedParameter<Host>> parameters(std::vector<std::string> const& names) {
  std::vector<sm::NamedParameter<Host>> result;
  for (std::string const& name : names) {
    result.push_back({name, Host::zeros({2})});
  }
  return result;
}

Host pair_of(float a, float b) {
  return Host::from({2}, std::vector<float>{a, b});
}

/// Loads a state dict from another on one rank.
void load(sm::StateDict into,
          sm::StateDict const& from,
          sm::KeyPolicy missing_tensors = sm::KeyPolicy::error,
          sm::KeyPolicy unexpected = sm::KeyPolicy::error) {
  sm::StateDict chosen;
  for (sm::StateEntry const& entry : into) {
    if (missing_tensors == sm::KeyPolicy::error || !entry.is_tensor()) {
      chosen.insert(entry.path, entry.value);
    }
  }
  unexpected = missing_tensors == sm::KeyPolicy::error ? unexpected : sm::KeyPolicy::ignore;
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::load_state_dict(world, chosen, from, {.unexpected = unexpected});
  });
}

/// An optimizer of a user's own: w -= lr * sign(g + decay * w). No state but the number of steps.
struct SignUpdate {
  float* weight;
  float const* gradient;
  float rate;
  void operator()(sm::index_t i) const noexcept {
    weight[i] -= gradient[i] > 0 ? rate : gradient[i] < 0 ? -rate : 0;
  }
};
struct SignOptions {
  double lr = 0.5;
  static constexpr char const* name = "Sign";
  static constexpr bool counts_steps = true;
  template <class V>
  void visit(V&& v) {
    v("lr", lr);
  }
  void check() const { sm::detail::expect_option(lr > 0, name, "lr", lr, "more than 0"); }
  [[nodiscard]] std::vector<std::string> state_names() const { return {}; }
  [[nodiscard]] SignUpdate update(sm::UpdateOperands const& x) const {
    return {x.weight, x.gradient, static_cast<float>(lr)};
  }
};

static_assert(sm::OptimizerOptions<sm::SgdOptions> && sm::OptimizerOptions<sm::AdamOptions>);
static_assert(sm::OptimizerOptions<sm::AdamWOptions> && sm::OptimizerOptions<SignOptions>);
static_assert(!sm::OptimizerOptions<SignUpdate>);

}  // namespace

TEST_SUITE_BEGIN("optim.optimizer");

TEST_CASE("20 steps equal 20 steps of PyTorch to 1e-6: plain tensors") {
  auto const data = test::optimizer_data();
  REQUIRE(data.at("cases").size() == 11);
  auto const deviation = worst_of_all_cases(data, whole);
  MESSAGE("worst " << deviation.worst << ", " << deviation.differing << " of " << deviation.elements
                   << " elements differ from PyTorch's in any bit");
}

TEST_CASE("20 steps equal 20 steps of PyTorch to 1e-6: shards, some of them empty") {
  auto const data = test::optimizer_data();
  sm::launch(sm::threads{3}, [&data](World& world) {
    auto const deviation = worst_of_all_cases(data, on_mesh(world));
    CHECK(deviation.worst < 1e-6);
  });
  sm::launch(sm::threads{6}, [&data](World& world) {
    auto const deviation = worst_of_all_cases(data, on_pair(world, 3));
    CHECK(deviation.worst < 1e-6);
  });
}

TEST_CASE("groups are written as PyTorch writes them, keys, order and values") {
  auto const data = test::optimizer_data();
  for (auto const& one : data.at("cases")) {
    test::with_options_of(one.at("optimizer"), [&]<class O>(O) {
      auto const optimizer = test::trained<O>(data, one, whole);
      auto const dict = optimizer.state_dict();
      sm::StateDict const flat = optimizer.flattened_state_dict();
      for (std::size_t g = 0; g < optimizer.groups(); ++g) {
        std::string const prefix = "param_groups." + std::to_string(g) + ".";
        std::string const parameter = one.at("groups").at(g).at("parameters").at(0);
        std::vector<std::string> keys;
        for (sm::StateEntry const& entry : dict) {
          if (entry.key.starts_with(prefix)) {
            keys.push_back(entry.key.substr(prefix.size()));
          }
        }
        auto const& written = one.at("param_groups").at(g);
        REQUIRE(keys.size() == written.size() + 1);
        CHECK(keys.back() == "params");
        for (std::size_t i = 0; i < written.size(); ++i) {
          std::string const key = written.at(i).at(0);
          CHECK(keys[i] == key);
          CHECK(to_string(dict.at(prefix + key).plain()) == written.at(i).at(1).get<std::string>());
          CHECK(flat.at("param_groups." + parameter + "." + key).plain() ==
                dict.at(prefix + key).plain());
        }
      }
    });
  }
}

TEST_CASE("the state is complete before the first step, in both forms") {
  sm::Sgd<Host> const sgd(parameters({"a.w", "b"}), {.momentum = 0.5});
  CHECK(keys_of(sgd.state_dict()) ==
        "state.a.w.momentum_buffer state.b.momentum_buffer param_groups.0.lr "
        "param_groups.0.momentum param_groups.0.dampening param_groups.0.weight_decay "
        "param_groups.0.nesterov param_groups.0.maximize param_groups.0.foreach "
        "param_groups.0.differentiable param_groups.0.fused param_groups.0.params");
  CHECK(sgd.state_dict().at("param_groups.0.params").plain() ==
        sm::Value(sm::Value::List{"a.w", "b"}));
  CHECK(sgd.state_dict().at("state.a.w.momentum_buffer").path ==
        std::vector<sm::PathElement>{"state", "a.w", "momentum_buffer"});
  sm::Adam<Host> const adam(parameters({"w"}), {.amsgrad = true});
  CHECK(keys_of(adam.flattened_state_dict()) ==
        "state.w.step state.w.exp_avg state.w.exp_avg_sq state.w.max_exp_avg_sq "
        "param_groups.w.lr param_groups.w.betas param_groups.w.eps param_groups.w.weight_decay "
        "param_groups.w.amsgrad param_groups.w.maximize param_groups.w.foreach "
        "param_groups.w.capturable param_groups.w.differentiable param_groups.w.fused "
        "param_groups.w.decoupled_weight_decay");
  CHECK(adam.flattened_state_dict().at("state.w.exp_avg").path ==
        std::vector<sm::PathElement>{"state.w.exp_avg"});
  sm::AnyTensor const step = adam.state_dict().at("state.w.step").tensor();
  CHECK(step.shape() == sm::Shape{});
  CHECK(step.get<Host>()->span()[0] == 0.0F);
}

TEST_CASE("an optimizer takes the trained parameters of a model, tied ones once") {
  Tied model;
  sm::Adam<Host> const adam(model);
  CHECK(names_of(adam.parameters()) == "first.weight first.bias second.bias");
  sm::Adam<sm::Tensor<float>> const of_vector({{"a", model.shared}, {"b", model.shared}});
  CHECK(names_of(of_vector.parameters()) == "a");
}

TEST_CASE("what an optimizer's parameters are is deduced") {
  Layer<Host> model{Host::zeros({2, 3}), Host::zeros({2})};
  sm::Adam adam(model, {.lr = 0.5, .amsgrad = true});
  static_assert(std::is_same_v<decltype(adam), sm::Adam<Host>>);
  CHECK(adam.options().amsgrad);
  sm::AdamW const adamw(model);
  CHECK(names_of(adamw.parameters()) == "weight bias");
  sm::Sgd const sgd(parameters({"a.w", "b"}), {.momentum = 0.5});
  CHECK(names_of(sgd.parameters()) == "a.w b");
  using Group = sm::Sgd<Host>::Group;
  sm::Sgd const grouped(std::vector<Group>{{parameters({"a"}), {.lr = 0.25}}});
  CHECK(grouped.options().lr == 0.25);
}

TEST_CASE("tied parameters are told from different ones where a rank holds no elements of them") {
  Host const none = Host::zeros({0, 3});
  Host const other = Host::zeros({0, 3});
  sm::Sgd<Host> const own({{"a", none}, {"b", other}, {"c", none}});
  CHECK(names_of(own.parameters()) == "a b");
  Host const flat = Host::zeros({6});
  auto const part = [&flat](sm::index_t offset, sm::Shape const& shape) {
    return Host::view(shape, std::shared_ptr<float>(flat.storage(), flat.data() + offset));
  };
  sm::Sgd<Host> const views(
      {{"a", part(0, {3})}, {"b", part(3, {3})}, {"c", part(3, {0})}, {"d", part(3, {0})}});
  CHECK(names_of(views.parameters()) == "a b c d");
}

TEST_CASE("a parameter in two groups, and two of one name, are refused") {
  using Group = sm::Sgd<Host>::Group;
  auto const a = parameters({"a"});
  CHECK_THROWS_WITH_AS(sm::Sgd<Host>(std::vector<Group>{{a}, {a}}),
                       doctest::Contains("shardmesh::Sgd: two parameters are named \"a\""),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(sm::Sgd<Host>(parameters({"x", "x"})),
                       doctest::Contains("two parameters are named \"x\""), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(sm::Sgd<Host>(std::vector<Group>{{a}, {{{"b", a[0].value}}}}),
                       doctest::Contains("\"a\" and \"b\" are the same elements, in two groups"),
                       sm::InvalidArgument);
}

TEST_CASE("gradients that do not fit are refused before anything changes") {
  Host const weight = pair_of(1, 2);
  sm::Adam<Host> adam({{"a", weight}, {"b", pair_of(3, 4)}});
  CHECK_THROWS_WITH_AS(adam.step({}),
                       doctest::Contains("shardmesh::Adam::step: 0 gradients for 2 parameters"),
                       sm::ShapeError);
  CHECK_THROWS_WITH_AS(
      adam.step({pair_of(1, 1), Host::zeros({3})}),
      doctest::Contains("the gradient of \"b\" has local shape (3), the parameter (2)"),
      sm::ShapeError);
  CHECK(weight.span()[0] == 1.0F);
  CHECK(adam.state_dict().at("state.a.step").tensor().get<Host>()->span()[0] == 0.0F);
}

TEST_CASE("options can be changed between steps, but not what state they need") {
  Host const weight = pair_of(1, 1);
  sm::Sgd<Host> sgd({{"w", weight}}, {.lr = 0.5});
  sgd.step({pair_of(1, 0)});
  sgd.options().lr = 0.25;
  sgd.step({pair_of(1, 0)});
  CHECK(weight.span()[0] == 0.25F);
  CHECK(weight.span()[1] == 1.0F);
  sgd.options().momentum = 0.9;
  CHECK_THROWS_WITH_AS(sgd.step({pair_of(1, 0)}),
                       doctest::Contains("other state (momentum_buffer)"), sm::InvalidArgument);
  CHECK(weight.span()[0] == 0.25F);
}

TEST_CASE("hyper-parameters go from group to group by the names of the parameters") {
  using Adam = sm::Adam<Host>;
  auto const a = parameters({"a"});
  auto const bc = parameters({"b", "c"});
  Adam const from(
      {Adam::Group{a, {.lr = 0.25}}, Adam::Group{bc, {.betas = {0.5, 0.75}, .weight_decay = 2}}});
  Adam to({Adam::Group{bc, {}}, Adam::Group{a, {}}});
  load({{"optim", to.state_dict()}}, {{"optim", from.state_dict()}});
  CHECK(to.options(0).betas == std::array<double, 2>{0.5, 0.75});
  CHECK(to.options(0).weight_decay == 2.0);
  CHECK(to.options(1).lr == 0.25);

  Adam flat({Adam::Group{bc, {}}, Adam::Group{a, {}}});
  load({{"optim", flat.flattened_state_dict()}}, {{"optim", from.flattened_state_dict()}});
  CHECK(sm::hyper_parameters(flat.options(0)) == sm::hyper_parameters(to.options(0)));
  CHECK(sm::hyper_parameters(flat.options(1)) == sm::hyper_parameters(to.options(1)));

  Adam one(parameters({"a", "b"}));
  auto const refused = [&](sm::StateDict const& into, sm::StateDict const& state) {
    CHECK_THROWS_WITH_AS(load(into, state, sm::KeyPolicy::ignore),
                         doctest::Contains("the hyper-parameters of \"b\" differ"),
                         sm::InvalidArgument);
    CHECK(one.options().lr == 1e-3);
  };
  refused(one.state_dict(), from.state_dict());
  refused(one.flattened_state_dict(), from.flattened_state_dict());
  Adam stranger(parameters({"z"}));
  CHECK_THROWS_WITH_AS(load(stranger.state_dict(), from.state_dict(), sm::KeyPolicy::ignore),
                       doctest::Contains("no group of the state has the parameter \"z\""),
                       sm::KeyError);
  CHECK_THROWS_WITH_AS(
      load(stranger.flattened_state_dict(), from.flattened_state_dict(), sm::KeyPolicy::ignore),
      doctest::Contains("\"param_groups.z.lr\""), sm::KeyError);
}

TEST_CASE("a state dict of one form takes a state of the other") {
  using Adam = sm::Adam<Host>;
  Adam const from({Adam::Group{parameters({"a"}), {.lr = 0.25}},
                   Adam::Group{parameters({"b.c", "0.w"}), {.lr = 0.5}}});
  Adam to({Adam::Group{parameters({"0.w", "b.c"}), {}}, Adam::Group{parameters({"a"}), {}}});
  load(to.state_dict(), from.flattened_state_dict());
  CHECK(to.options(0).lr == 0.5);
  CHECK(to.options(1).lr == 0.25);
  to.options(0).lr = 0.75;
  Adam back({Adam::Group{parameters({"a"}), {}}, Adam::Group{parameters({"b.c", "0.w"}), {}}});
  load(back.flattened_state_dict(), to.state_dict());
  CHECK(back.options(0).lr == 0.25);
  CHECK(back.options(1).lr == 0.75);
}

TEST_CASE("a loaded momentum buffer counts as one, as in PyTorch") {
  // torch: after load_state_dict the first step dampens; in a fresh optimizer it does not.
  sm::SgdOptions const options{.lr = 1, .momentum = 0.5, .dampening = 0.75};
  Host const weight = pair_of(0, 0);
  sm::Sgd<Host> sgd({{"w", weight}}, options);
  sgd.state_dict().at("state.w.momentum_buffer").tensor().get<Host>()->span()[0] = 8;
  sm::StateDict const copy = sm::offloaded(sgd.state_dict());
  load(sgd.state_dict(), copy);
  sgd.step({pair_of(4, 0)});
  CHECK(weight.span()[0] == -5.0F);  // 0.5 * 8 + 0.25 * 4
}

TEST_CASE("a momentum buffer that is loaded without options, or not, is told apart") {
  sm::SgdOptions const options{.lr = 1, .momentum = 0.5, .dampening = 0.75};
  for (bool const has_buffer : {false, true}) {
    Host const weight = pair_of(0, 0);
    sm::Sgd<Host> sgd({{"w", weight}}, options);
    sm::StateDict into;
    sm::StateDict from;
    for (sm::StateEntry const& entry : sgd.state_dict()) {
      (entry.is_tensor() == has_buffer ? into : from).insert(entry.path, entry.value);
    }
    load(into, sm::offloaded(sgd.state_dict()), sm::KeyPolicy::error, sm::KeyPolicy::ignore);
    sgd.step({pair_of(4, 0)});
    CHECK(weight.span()[0] ==
          (has_buffer ? -1.0F : -4.0F));  // 0.25 * 4: not the first step any more
  }
}

TEST_CASE("a fourth optimizer is a struct of its options") {
  Host const weight = pair_of(1, 1);
  sm::Optimizer<Host, SignOptions> sign({{"w", weight}}, {.lr = 0.25});
  sign.step({pair_of(-3, 2)});
  CHECK(weight.span()[0] == 1.25F);
  CHECK(weight.span()[1] == 0.75F);
  CHECK(keys_of(sign.state_dict()) == "state.w.step param_groups.0.lr param_groups.0.params");
  CHECK_THROWS_WITH_AS((sm::Optimizer<Host, SignOptions>(parameters({"w"}), {.lr = -1})),
                       "shardmesh::Sign: lr is -1.0, it must be more than 0", sm::InvalidArgument);
}

TEST_SUITE_END();

}  // namespace optimizer_test
