// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Optimizers that PyTorch saved (tests/data/make_optimizers.py), loaded by one call: the training goes
// on as PyTorch's own does, and the next save has everything that was there.
#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"

namespace optimizer_files_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using Host = sm::Tensor<float>;

namespace {

std::string file(std::string const& name) {
  return test::data_directory + "/optimizers/" + name;
}

/// The two layers of the fixtures, sharded by rows over all ranks.
struct Net {
  explicit Net(World const& world)
      : place([mesh = sm::device_mesh(world, {world.size()})](Host const& whole) {
          return sm::distribute(whole, mesh, sm::placements<sm::Shard<0>>, sm::DataSource::own);
        }) {
    for (auto const& [name, shape] : std::vector<std::pair<std::string, sm::Shape>>{
             {"l1.weight", {5, 4}}, {"l1.bias", {5}}, {"l2.weight", {3, 5}}, {"l2.bias", {3}}}) {
      parameters.push_back({name, place(Host::zeros(shape))});
    }
  }

  std::function<decltype(sm::distribute(std::declval<Host const&>(),
                                        sm::device_mesh(std::declval<World const&>(), {1}),
                                        sm::placements<sm::Shard<0>>))(Host const&)>
      place;
  using Parameter = std::invoke_result_t<decltype(place), Host const&>;
  std::vector<sm::NamedParameter<Parameter>> parameters;

  [[nodiscard]] sm::StateDict state() const {
    sm::StateDict dict;
    for (auto const& one : parameters) {
      dict.insert(one.name, one.value);
    }
    return dict;
  }
};

using Parameter = Net::Parameter;
using AdamW = sm::AdamW<Parameter>;
using Group = AdamW::Group;

constexpr sm::AdamWOptions other{.lr = 7, .betas = {0.1, 0.2}, .eps = 1, .weight_decay = 2};

/// The optimizer of a fixture, constructed with other options.
AdamW optimizer_for(std::string const& name, Net const& net) {
  auto const& all = net.parameters;
  if (name == "groups") {
    return AdamW(std::vector<Group>{{{all[0], all[2]}, other}, {{all[3], all[1]}, other}});
  }
  if (name == "frozen_later") {  // its first layer does not move any more
    return AdamW(std::vector{all[2], all[3]}, other);
  }
  if (name == "empty_group") {
    return AdamW(std::vector<Group>{{{}, other}, {all, other}});
  }
  return AdamW(all, other);
}

/// The gradients of make_optimizers.py.
std::vector<Parameter> gradients(AdamW const& adam, Net const& net, int number) {
  std::vector<Parameter> all;
  for (auto const& one : adam.parameters()) {
    Host const whole = Host::zeros(one.value.shape());
    float ramp = 0;
    for (float& element : whole.span()) {
      element = (ramp++ - 3) / (4.0F * static_cast<float>(number));
    }
    all.push_back(net.place(whole));
  }
  return all;
}

double worst_deviation(Net const& net, nlohmann::json const& expected) {
  double worst = 0;
  sm::StateDict const whole = sm::full_state_dict(net.state());
  for (sm::StateEntry const& entry : whole) {
    auto const values = expected.at(entry.key).get<std::vector<double>>();
    auto const got = entry.tensor().get<Host>()->span();
    for (std::size_t i = 0; i < values.size(); ++i) {
      worst = std::max(worst, std::abs(values[i] - static_cast<double>(got[i])));
    }
  }
  return worst;
}

std::set<std::string> keys_of(std::string const& directory) {
  auto const keys = sm::DcpCatalog<>(directory).keys();
  return {keys.begin(), keys.end()};
}

/// What the library warns of meanwhile.
class Warnings : public sm::LogSink {
 public:
  void write(sm::LogLevel level, std::string_view line) override {
    std::lock_guard const lock(mutex_);
    if (level == sm::LogLevel::warning) {
      lines_.emplace_back(line);
    }
  }
  /// The lines that name a key.
  [[nodiscard]] std::vector<std::string> of(std::string const& key) const {
    std::lock_guard const lock(mutex_);
    std::vector<std::string> found;
    for (std::string const& line : lines_) {
      if (line.find("\"" + key + "\"") != std::string::npos) {
        found.push_back(line);
      }
    }
    return found;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

nlohmann::json expected_steps() {
  std::ifstream json(file("expected.json"));
  return nlohmann::json::parse(json);
}

}  // namespace

TEST_SUITE_BEGIN("checkpoint.optimizer_files");

TEST_CASE(
    "a training that PyTorch saved goes on as PyTorch's own, whatever kinds its options have") {
  auto const expected = expected_steps();
  test::Scratch const scratch;
  CHECK(expected.size() == 10);
  for (auto const& one : expected.items()) {
    std::string const name = one.key();
    nlohmann::json const& steps = one.value();
    for (int const ranks : {1, 3}) {
      sm::launch(sm::threads{ranks}, [&](World& world) {
        INFO(name, ", ", ranks, " ranks");
        Net net(world);
        AdamW adam = optimizer_for(name, net);
        sm::StateDict state{
            {"model", net.state()},
            {"optim", name == "flattened" ? adam.flattened_state_dict() : adam.state_dict()}};
        sm::load(world, file(name), state);
        std::string const again = scratch / (name + std::to_string(ranks));
        sm::save(world, again, state);
        bool const has_all = name != "frozen_later";
        CHECK((keys_of(again) == keys_of(file(name))) == has_all);  // nothing is lost on the way
        for (int const number : {3, 4}) {
          adam.step(gradients(adam, net, number));
        }
        double const worst = worst_deviation(net, steps);
        CHECK(worst < 1e-6);
      });
    }
  }
}

TEST_CASE("the options of the files are those that were saved") {
  sm::launch(sm::threads{1}, [](World& world) {
    auto const loaded = [&](std::string const& name) {
      Net const net(world);
      AdamW adam = optimizer_for(name, net);
      sm::StateDict state{{"model", net.state()}, {"optim", adam.state_dict()}};
      sm::load(world, file(name), state);
      return adam;
    };
    CHECK(loaded("plain").options().lr == 0.01);
    CHECK(loaded("plain").options().betas == std::array<double, 2>{0.9, 0.999});
    CHECK(loaded("plain").options().eps == 1e-8);
    CHECK(loaded("groups").options(0).weight_decay == 0.1);
    CHECK(loaded("groups").options(1).weight_decay == 0.0);
    CHECK(loaded("lr_tensor").options().lr == static_cast<double>(0.02F));
    CHECK(loaded("lr_numpy").options().lr == 0.5 * 0.01 * (1 + std::cos(0.3 * std::acos(-1.0))));
    CHECK(loaded("betas_list").options().betas == std::array<double, 2>{0.9, 0.95});
    CHECK(loaded("betas_list_of_tensors").options().betas == std::array<double, 2>{0.5, 0.75});
    CHECK(loaded("empty_group").options(0).lr == 0.001);
    CHECK(loaded("empty_group").options(0).weight_decay == 0.01);
    CHECK(loaded("empty_group").options(1).lr == 0.01);
    CHECK(loaded("empty_group").options(1).weight_decay == 0.3);
    CHECK(loaded("initial_lr").options().lr == 0.005);
    CHECK(loaded("initial_lr").carried_options() == sm::Value::Dict{{"initial_lr", 0.01}});
    CHECK(to_string(loaded("foreign").carried_options()) ==
          R"({"fused": False, "name": "all", "layers": [{"lr_scale": 0.5}, )"
          R"({"lr_scale": 1, "tags": ["a", "b"]}]})");
    AdamW const adam = loaded("int_step");
    sm::StateDict const state = adam.state_dict();
    for (auto const& one : adam.parameters()) {
      CHECK(state.at("state." + one.name + ".step").tensor().get<Host>()->span()[0] == 2.0F);
    }
  });
}

TEST_CASE("options that were carried are the same in the next file and the one after it") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](World& world) {
    std::string from = file("foreign");
    for (std::string const& to : {scratch / "one", scratch / "two"}) {
      Net const net(world);
      AdamW adam = optimizer_for("foreign", net);
      sm::StateDict const early{{"model", net.state()}, {"optim", adam.state_dict()}};
      sm::StateDict state = early;
      sm::load(world, from, state);
      sm::save(world, to, early);
      sm::DcpCatalog<> before(file("foreign"));
      sm::DcpCatalog<> after(to);
      for (std::string const& key : before.keys()) {
        REQUIRE(after.contains(key));
        CHECK(after.path(key) == before.path(key));
        if (before.tensor(key) == nullptr) {
          CHECK(after.value(key) == before.value(key));
        }
      }
      from = to;
    }
  });
}

TEST_CASE("what a parameter without gradient has not is missing, and may be") {
  sm::launch(sm::threads{2}, [](World& world) {
    Net const net(world);
    AdamW adam(net.parameters, other);
    sm::StateDict state{{"model", net.state()}, {"optim", adam.state_dict()}};
    auto const text =
        test::error_of<sm::KeyError>([&] { sm::load(world, file("no_grad"), state); });
    CHECK(text.find("\"optim.state.l2.weight.step\"") != std::string::npos);
    CHECK(adam.options().lr == 7.0);
    auto const report =
        sm::load(world, file("no_grad"), state, {.missing = sm::KeyPolicy::collect});
    CHECK(report.missing.size() == 2 * 3);
    CHECK(adam.options().lr == 0.01);
    CHECK(adam.options().weight_decay == 0.01);
  });
}

TEST_CASE("groups of which no rank has a parameter are unexpected, those of another rank are not") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const unexpected = [&](bool first_has_weights) {
      Net const net(world);
      auto const& all = net.parameters;
      bool const weights = first_has_weights && world.rank() == 0;
      AdamW adam(weights ? std::vector{all[0], all[2]} : std::vector{all[1], all[3]}, other);
      sm::StateDict state{{"optim", adam.state_dict()}};
      auto const report =
          sm::load(world, file("groups"), state, {.unexpected = sm::KeyPolicy::collect});
      CHECK(adam.options().weight_decay == (weights ? 0.1 : 0.0));
      std::set<std::string> keys;
      for (std::string const& key : report.unexpected) {
        if (key.starts_with("optim.param_groups.")) {
          keys.insert(key);
        }
      }
      return keys;
    };
    CHECK(unexpected(true).empty());
    CHECK(unexpected(false).size() == 12);
    CHECK(unexpected(false).contains("optim.param_groups.1.params"));
    Net const net(world);
    AdamW adam(std::vector{net.parameters[0]}, other);
    sm::StateDict state{{"optim", adam.state_dict()}};
    CHECK_THROWS_AS(sm::load(world, file("groups"), state, {.unexpected = sm::KeyPolicy::error}),
                    sm::KeyError);
    CHECK(adam.options().lr == 7.0);
  });
}

TEST_CASE("safetensors have no plain values, but numbers as 0-d tensors") {
  test::Scratch const scratch;
  Host const rate = Host::zeros({});
  rate.span()[0] = 0.25F;
  Host const weight = Host::zeros({2});
  sm::AdamW<Host> adam({{"a.w", weight}}, other);
  sm::StateDict saved;
  for (sm::StateEntry const& entry : sm::offloaded({{"optim", adam.flattened_state_dict()}})) {
    if (entry.is_tensor()) {
      saved.insert(entry.path, entry.value);
    }
  }
  saved.insert("optim.param_groups.a.w.lr", rate);
  saved.insert("optim.param_groups.a.w.initial_lr", rate);
  sm::save_safetensors(scratch / "a.safetensors", saved);
  sm::launch(sm::threads{1}, [&](World& world) {
    for (bool const flat : {true, false}) {
      adam.options().lr = 7;
      sm::StateDict state{{"optim", flat ? adam.flattened_state_dict() : adam.state_dict()}};
      CHECK_THROWS_AS(sm::load_any(world, scratch / "a.safetensors", state), sm::KeyError);
      auto const report = sm::load_any(world, scratch / "a.safetensors", state,
                                       {.missing = sm::KeyPolicy::collect});
      CHECK(report.missing.size() == 3);  // betas, eps, weight_decay; switches may be missing
      CHECK(adam.options().lr == 0.25);
      CHECK(adam.options().weight_decay == 2.0);
      CHECK(adam.carried_options() == sm::Value::Dict{{"initial_lr", 0.25}});
    }
  });
}

TEST_CASE("a pair of tensors in a tuple is refused with its key, before anything is overwritten") {
  sm::launch(sm::threads{2}, [](World& world) {
    Net const net(world);
    AdamW adam(net.parameters, other);
    sm::StateDict state{{"model", net.state()}, {"optim", adam.state_dict()}};
    sm::StateDict const before = sm::offloaded(state);
    for (sm::KeyPolicy const policy : {sm::KeyPolicy::error, sm::KeyPolicy::ignore}) {
      auto const text = test::error_of<sm::Error>(
          [&] { sm::load(world, file("betas_tuple_of_tensors"), state, {.missing = policy}); });
      CHECK_MESSAGE(text.find("\"optim.param_groups.0.betas\"") != std::string::npos, text);
      CHECK(sm::difference(sm::offloaded(state), before) == "");
    }
  });
}

TEST_CASE("a tensor among the options that nobody can carry is never lost in silence") {
  test::Scratch const scratch;
  using Policy = sm::KeyPolicy;
  std::string const key = "optim.param_groups.0.mask";
  Warnings warnings;
  sm::UseLogSink const use(warnings);
  sm::launch(sm::threads{2}, [&](World& world) {
    Net const net(world);
    // Only the second rank trains what the group is of.
    std::size_t const first = world.rank() == 1 ? 0 : 4;
    std::vector<sm::NamedParameter<Parameter>> const own(
        net.parameters.begin() + static_cast<std::ptrdiff_t>(first), net.parameters.end());
    AdamW adam(own, other);
    sm::StateDict state{{"optim", adam.state_dict()}};
    auto const text = test::error_of<sm::KeyError>(
        [&] { sm::load(world, file("mask"), state, {.unexpected = Policy::error}); });
    CHECK_MESSAGE(text.find("keys that no state dict has") != std::string::npos, text);
    if (first == 0) {
      CHECK(adam.options().lr == 7.0);
    }
    auto const unexpected =
        sm::load(world, file("mask"), state, {.unexpected = Policy::collect}).unexpected;
    CHECK(std::count(unexpected.begin(), unexpected.end(), key) == 1);
    world.barrier();
    CHECK(warnings.of(key).empty());
    world.barrier();
    sm::load(world, file("mask"), state);
    world.barrier();
    std::vector<std::string> const said = warnings.of(key);
    REQUIRE(said.size() == 1);  // by one rank
    CHECK(said[0].starts_with("shardmesh::load: "));
    CHECK(said[0].find("will be missing in the next save") != std::string::npos);
    if (first == 0) {
      CHECK(adam.carried_options() == sm::Value::Dict{{"initial_lr", 0.02}});
    }
    // As part of the state itself it is loaded, and nothing has to be said.
    Host const mask = Host::zeros({3});
    state.insert({"optim", "param_groups", sm::index_t{0}, "mask"}, mask);
    sm::load(world, file("mask"), state);
    CHECK(mask.span()[2] == 1.0F);
    world.barrier();
    CHECK(warnings.of(key).size() == 1);
  });
  // The same of a stream, and of a state in memory.
  sm::launch(sm::threads{1}, [&](World& world) {
    Host const weight = Host::zeros({2});
    sm::AdamW<Host> adam({{"a.w", weight}}, other);
    sm::StateDict saved = sm::offloaded({{"optim", adam.state_dict()}});
    saved.insert({"optim", "param_groups", sm::index_t{0}, "mask"}, Host::zeros({3}));
    sm::StateDict state{{"optim", adam.state_dict()}};
    std::stringstream stream;
    sm::save_stream(stream, saved);
    sm::load_stream(stream, state);
    CHECK(warnings.of(key).size() == 2);
    auto const text =
        test::error_of<sm::KeyError>([&] { sm::load_state_dict(world, state, saved); });
    CHECK_MESSAGE(text.find(key) != std::string::npos, text);
    CHECK(warnings.of(key).size() == 2);
    sm::load_state_dict(world, state, saved, {.unexpected = Policy::ignore});
    CHECK(warnings.of(key).size() == 3);
    CHECK(warnings.of(key).back().starts_with("shardmesh::load_state_dict: "));
  });
}

TEST_CASE("options that stay refused are named, before anything is overwritten") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](World& world) {
    Net const net(world);
    AdamW adam(net.parameters, other);
    auto const refused = [&](std::string const& key, sm::StateValue const& value) {
      sm::StateDict wrong;
      sm::StateDict const good{{"model", net.state()}, {"optim", adam.state_dict()}};
      for (sm::StateEntry const& entry : sm::offloaded(good)) {
        wrong.insert(entry.path, entry.key == "optim.param_groups.0." + key ? value : entry.value);
      }
      for (sm::StateEntry const& entry : wrong) {
        if (entry.is_tensor() && entry.tensor().get<Host>() != nullptr &&
            entry.tensor().bytes() == sizeof(float)) {
          entry.tensor().get<Host>()->span()[0] = 5;
        }
      }
      sm::save(world, scratch / "wrong", wrong);
      sm::StateDict state = good;
      sm::StateDict const before = sm::offloaded(good);
      auto const text =
          test::error_of<sm::Error>([&] { sm::load(world, scratch / "wrong", state); });
      CHECK_MESSAGE(text.find("optim.param_groups.0." + key) != std::string::npos, text);
      CHECK(sm::difference(sm::offloaded(good), before) == "");
    };
    refused("lr", sm::Value("fast"));
    refused("lr", sm::AnyTensor(Host::zeros({2})));
    refused("lr", sm::AnyTensor(sm::Tensor<sm::Complex<float>>::zeros({})));
    refused("betas", sm::Value(sm::Value::List{0.5, 0.5, 0.5}));
    refused("eps", sm::Value());
    refused("maximize", sm::Value("yes"));
    refused("decoupled_weight_decay", sm::Value(false));
  });
}

TEST_SUITE_END();

}  // namespace optimizer_files_test
