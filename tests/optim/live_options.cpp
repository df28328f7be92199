// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A state dict refers to the hyper-parameters of its optimizer, as to its tensors.
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/optim/optimizer_state.hpp>
#include <shardmesh/optim/optimizer_values.hpp>
#include <shardmesh/optim/sgd.hpp>
#include <shardmesh/optim/stored_groups.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/live_sections.hpp>
#include <shardmesh/state/live_values.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/state/state_value.hpp>
#include <shardmesh/state/summary.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace live_options_test {

namespace sm = shardmesh;

using Host = sm::Tensor<float>;
using Adam = sm::Adam<Host>;

namespace {

std::vector<sm::NamedParameter<Host>> parameters(std::vector<std::string> const& names) {
  std::vector<sm::NamedParameter<Host>> result;
  for (std::string const& name : names) {
    result.push_back({name, Host::zeros({2})});
  }
  return result;
}

/// Loads a state dict from another on one rank.
sm::StateLoadReport load(sm::StateDict& into,
                         sm::StateDict const& from,
                         sm::StateOptions const& options = {}) {
  sm::StateLoadReport report;
  sm::launch(sm::threads{1},
             [&](auto& world) { report = sm::load_state_dict(world, into, from, options); });
  return report;
}

/// A copy of a state, with some plain values more or others: what a file might hold.
sm::StateDict saved(sm::StateDict const& state,
                    std::vector<std::pair<std::string, sm::StateValue>> const& values = {}) {
  sm::StateDict copy = sm::offloaded(state);
  for (auto const& [key, value] : values) {
    if (copy.contains(key)) {
      sm::StateDict changed;
      for (sm::StateEntry const& entry : copy) {
        changed.insert(entry.path, entry.key == key ? value : entry.value);
      }
      copy = std::move(changed);
      continue;
    }
    std::string const name = key.substr(key.rfind('.') + 1);
    bool const is_nested = state.contains("param_groups.0.params");
    copy.insert(is_nested ? std::vector<sm::PathElement>{"param_groups", sm::index_t{0}, name}
                          : std::vector<sm::PathElement>{key},
                value);
  }
  return copy;
}

template <class O>
concept HasSecondStep = requires(O& optimizer, sm::StateDict const& dict) {
  optimizer.load_options(dict);
} || requires(O& optimizer, sm::StateDict const& dict) { optimizer.load_flattened(dict); };

/// Keys of the plain values.
std::string keys_of(sm::StateDict const& dict) {
  std::string text;
  for (sm::StateEntry const& entry : dict) {
    text += entry.is_tensor() ? "" : (text.empty() ? "" : " ") + entry.key;
  }
  return text;
}

}  // namespace

TEST_SUITE_BEGIN("optim.live_options");

TEST_CASE("a state dict that was taken once has the options that the optimizer has now") {
  Adam adam(parameters({"w"}), {.lr = 0.5});
  sm::StateDict const nested = adam.state_dict();
  sm::StateDict const flat{{"optim", adam.flattened_state_dict()}};
  adam.options().lr = 0.25;
  adam.options().betas = {0.5, 0.75};
  CHECK(nested.at("param_groups.0.lr").plain() == sm::Value(0.25));
  CHECK(to_string(nested.at("param_groups.0.betas").plain()) == "(0.5, 0.75)");
  CHECK(flat.at("optim.param_groups.w.lr").plain() == sm::Value(0.25));
  CHECK(nested.at("param_groups.0.lr").is_live());
  CHECK_FALSE(nested.at("state.w.step").is_live());
}

TEST_CASE("copies of a state have the options of their time") {
  Adam adam(parameters({"w"}), {.lr = 0.5});
  sm::StateDict const dict = adam.state_dict();
  sm::StateDict const copy = sm::offloaded(dict);
  sm::StateDict const full = sm::full_state_dict(dict);
  std::optional<sm::StateDict> everywhere;
  sm::launch(sm::threads{1},
             [&](auto& world) { everywhere = sm::replicated_state_dict(world, dict); });
  adam.options().lr = 0.25;
  for (sm::StateDict const* one : std::vector<sm::StateDict const*>{&copy, &full, &*everywhere}) {
    CHECK(one->at("param_groups.0.lr").plain() == sm::Value(0.5));
    CHECK_FALSE(one->at("param_groups.0.lr").is_live());
    CHECK(sm::detail::live_sections(*one).empty());
  }
}

TEST_CASE("a state dict may outlive its optimizer, and a copy is the same optimizer") {
  sm::StateDict dict;
  sm::StateDict const other = saved(Adam(parameters({"w"}), {.lr = 2}).state_dict());
  std::optional<Adam> copy;
  {
    Adam adam(parameters({"w"}), {.lr = 0.5});
    dict = adam.state_dict();
    copy = adam;
  }
  load(dict, other);
  CHECK(dict.at("param_groups.0.lr").plain() == sm::Value(2.0));
  CHECK(copy->options().lr == 2.0);
  copy.reset();
  CHECK(dict.at("param_groups.0.lr").plain() == sm::Value(2.0));
  CHECK(to_string(dict.at("param_groups.0.params").plain()) == R"(["w"])");
}

TEST_CASE("there is no second step to a load that could be forgotten") {
  CHECK_FALSE(HasSecondStep<Adam>);
}

TEST_CASE("setting a value of an optimizer in a dict sets it there, or is refused") {
  Adam adam(parameters({"w"}), {.lr = 0.5});
  sm::StateDict dict = adam.state_dict();
  dict.set("param_groups.0.lr", 0.125);
  CHECK(adam.options().lr == 0.125);
  CHECK_THROWS_WITH_AS(dict.set("param_groups.0.lr", -1.0), doctest::Contains("lr is -1.0"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(dict.set("param_groups.0.lr", "fast"),
                       doctest::Contains("\"param_groups.0.lr\" is of the kind str"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(dict.set("param_groups.0.amsgrad", true),
                       doctest::Contains("these keep exp_avg, exp_avg_sq;"), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(dict.set("param_groups.0.params", sm::Value::List{}),
                       doctest::Contains("the names of the parameters"), sm::InvalidArgument);
  CHECK(adam.options().lr == 0.125);
  dict.set("param_groups.0.fused", true);
  CHECK(dict.at("param_groups.0.fused").plain() == sm::Value(true));
  dict.set("param_groups.0.fused", sm::Value());
  CHECK(adam.carried_options().empty());
}

TEST_CASE("options that an optimizer does not know are carried to the next save, in their order") {
  for (bool const flat : {false, true}) {
    auto const state = [flat](Adam const& adam) {
      return flat ? adam.flattened_state_dict() : adam.state_dict();
    };
    std::string const group = flat ? "param_groups.w." : "param_groups.0.";
    Adam first(parameters({"w"}), {.lr = 0.5});
    sm::StateDict const file =
        saved(state(first), {{group + "initial_lr", sm::Value(0.75)},
                             {group + "fused", sm::Value(true)},
                             {group + "note", sm::Value(sm::Value::List{1})}});
    Adam adam(parameters({"w"}));
    sm::StateDict const before = state(adam);
    sm::StateDict dict = state(adam);
    load(dict, file);
    CHECK(adam.options().lr == 0.5);
    std::string const tail = flat ? "" : " param_groups.0.params";
    std::string const wanted = keys_of(state(first));
    std::string const known = wanted.substr(0, wanted.size() - tail.size());
    std::string const all = known + " " + group + "initial_lr " + group + "note" + tail;
    CHECK(keys_of(dict) == all);
    CHECK(keys_of(state(adam)) == all);
    CHECK(keys_of(saved(before)) == all);  // one that was taken before the load, saved after it
    CHECK(keys_of(sm::full_state_dict(before)) == all);
    CHECK(dict.at(group + "initial_lr").plain() == sm::Value(0.75));
    CHECK(before.at(group + "fused").plain() == sm::Value(true));
    adam.carried_options().front().second = sm::Value(false);
    CHECK(dict.at(group + "fused").plain() == sm::Value(false));

    // Another state that has none of them: they are gone.
    load(dict, saved(state(Adam(parameters({"w"})))));
    CHECK(keys_of(dict) == wanted);
    CHECK(adam.carried_options().empty());
  }
}

TEST_CASE("one group of options cannot carry what differs between its parameters") {
  Adam const from({Adam::Group{parameters({"a"}), {}}, Adam::Group{parameters({"b"}), {}}});
  sm::StateDict const file =
      saved(from.state_dict(), {{"param_groups.0.initial_lr", sm::Value(0.75)}});
  Adam adam(parameters({"a", "b"}), {.lr = 0.5});
  sm::StateDict into = adam.state_dict();
  CHECK_THROWS_WITH_AS(load(into, file, {.unexpected = sm::KeyPolicy::ignore}),
                       doctest::Contains("the hyper-parameters of \"b\" differ"),
                       sm::InvalidArgument);
  CHECK(adam.options().lr == 0.5);
}

TEST_CASE(
    "a group without parameters is found by its number, or where that is another's, by that") {
  Adam const from({Adam::Group{{}, {.lr = 0.125}}, Adam::Group{parameters({"a"}), {.lr = 0.25}}});
  sm::StateDict const file = saved(from.state_dict());
  Adam same({Adam::Group{{}, {}}, Adam::Group{parameters({"a"}), {}}});
  sm::StateDict dict = same.state_dict();
  load(dict, file);
  CHECK(same.options(0).lr == 0.125);
  CHECK(same.options(1).lr == 0.25);
  Adam turned({Adam::Group{parameters({"a"}), {}}, Adam::Group{{}, {}}});
  dict = turned.state_dict();
  load(dict, file);
  CHECK(turned.options(0).lr == 0.25);
  CHECK(turned.options(1).lr == 0.125);
  // A rank of a pipeline that has none of a group's parameters.
  Adam const both(
      {Adam::Group{parameters({"a"}), {.lr = 0.25}}, Adam::Group{parameters({"b"}), {.lr = 0.5}}});
  Adam stage({Adam::Group{parameters({"a"}), {}}, Adam::Group{{}, {}}});
  dict = stage.state_dict();
  load(dict, saved(both.state_dict()), {.unexpected = sm::KeyPolicy::ignore});
  CHECK(stage.options(1).lr == 0.5);
  Adam more({Adam::Group{parameters({"a", "b"}), {}}, Adam::Group{{}, {}}, Adam::Group{{}, {}}});
  dict = more.state_dict();
  CHECK_THROWS_WITH_AS(load(dict, saved(Adam(parameters({"a", "b"})).state_dict())),
                       doctest::Contains("\"param_groups.1.params\" (there is no group of this "
                                         "number), \"param_groups.2.params\""),
                       sm::KeyError);
}

TEST_CASE("what a dict leaves out of an optimizer stays, what the source lacks is told") {
  Adam adam(parameters({"w"}), {.lr = 0.5, .eps = 0.25});
  sm::StateDict dict;
  for (sm::StateEntry const& entry : adam.state_dict()) {
    if (entry.key != "param_groups.0.lr") {
      dict.insert(entry.path, entry.value);
    }
  }
  sm::StateDict const file = saved(Adam(parameters({"w"}), {.lr = 2, .eps = 2}).state_dict());
  load(dict, file);
  CHECK(adam.options().lr == 0.5);
  CHECK(adam.options().eps == 2.0);

  sm::StateDict less;
  for (sm::StateEntry const& entry : file) {
    if (entry.key != "param_groups.0.lr" && entry.key != "param_groups.0.amsgrad") {
      less.insert(entry.path, entry.value);
    }
  }
  sm::StateDict whole = adam.state_dict();
  CHECK_THROWS_WITH_AS(load(whole, less), doctest::Contains("\"param_groups.0.lr\""), sm::KeyError);
  auto const report = load(whole, less, {.missing = sm::KeyPolicy::collect});
  CHECK(report.missing == std::vector<std::string>{"param_groups.0.lr"});
  CHECK(adam.options().lr == 0.5);
}

TEST_CASE("groups that none of the optimizer's parameters are in are unexpected") {
  Adam const from({Adam::Group{parameters({"a"}), {}}, Adam::Group{parameters({"b"}), {}}});
  Adam adam(parameters({"a"}));
  sm::StateDict dict = adam.state_dict();
  auto const report = load(dict, from.state_dict(), {.unexpected = sm::KeyPolicy::collect});
  CHECK(report.unexpected.size() == 3 + 12);
  CHECK(report.unexpected.back() == "param_groups.1.params");
  sm::StateDict flat = adam.flattened_state_dict();
  auto const other =
      load(flat, from.flattened_state_dict(), {.unexpected = sm::KeyPolicy::collect});
  CHECK(other.unexpected.size() == 3 + 11);
  CHECK(other.unexpected.back() == "param_groups.b.decoupled_weight_decay");
}

TEST_CASE("numbers come in every kind that Python has them in") {
  Adam adam(parameters({"w"}), {.lr = 0.5});
  sm::StateDict dict = adam.state_dict();
  Host const rate = Host::zeros({});
  rate.span()[0] = 0.1F;
  sm::Tensor<bool> const yes = sm::Tensor<bool>::zeros({1});
  yes.span()[0] = true;
  load(dict, saved(adam.state_dict(), {{"param_groups.0.lr", sm::AnyTensor(rate)},
                                       {"param_groups.0.betas", sm::Value(sm::Value::List{0, 0.5})},
                                       {"param_groups.0.eps", sm::Value(1)},
                                       {"param_groups.0.maximize", sm::AnyTensor(yes)},
                                       {"param_groups.0.capturable", sm::Value(1)},
                                       {"state.w.step", sm::Value(7)}}));
  CHECK(adam.options().lr == static_cast<double>(0.1F));
  CHECK(adam.options().betas == std::array<double, 2>{0, 0.5});
  CHECK(adam.options().eps == 1.0);
  CHECK(adam.options().maximize);
  CHECK(dict.at("param_groups.0.capturable").plain() == sm::Value(1));
  CHECK(dict.at("state.w.step").tensor().get<Host>()->span()[0] == 7.0F);
}

TEST_CASE("groups that are none are refused by their key") {
  Adam adam(parameters({"w"}), {.lr = 0.5});
  sm::StateDict into{{"optim", adam.state_dict()}};
  auto const refused = [&](sm::Value groups, char const* why) {
    sm::StateDict file;
    for (sm::StateEntry const& entry : sm::offloaded(into)) {
      if (entry.is_tensor()) {
        file.insert(entry.path, entry.value);
      }
    }
    file.insert(std::vector<sm::PathElement>{"optim", "param_groups"}, std::move(groups));
    CHECK_THROWS_WITH_AS(load(into, file), doctest::Contains(why), sm::InvalidArgument);
    CHECK(adam.options().lr == 0.5);
  };
  refused(7, "\"optim.param_groups\" is of the kind int, not a list of groups");
  refused(sm::Value::List{3},
          "\"optim.param_groups.0\" is of the kind int, not a group of options");
  refused(sm::Value::List{sm::Value::Dict{{"params", sm::Value::List{0, 1}}}},
          "\"optim.param_groups.0.params\" lists 0 instead of the name of a parameter");
}

TEST_SUITE_END();

}  // namespace live_options_test
