// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Plain values, numbers that are tensors, containers in parts, and tensors with several names.
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/save_options.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/state/value_finder.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"

namespace load_values_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using Host = sm::Tensor<float>;
using Path = std::vector<sm::PathElement>;

namespace {

std::string const plain_files = test::data_directory + "/plain";

template <class T>
sm::Tensor<T> scalar(T value) {
  auto tensor = sm::Tensor<T>::zeros({});
  tensor.span()[0] = value;
  return tensor;
}

template <class T>
T value_of(sm::Tensor<T> const& tensor) {
  return tensor.span()[0];
}

/// Runs a load on two ranks that must succeed.
template <class Make>
void on_two(Make const& make) {
  sm::launch(sm::threads{2}, [&](World& world) { make(world); });
}

/// What an entry of the fixture comes to, as text, if the state dict has a plain value there.
std::string loaded(Path const& path) {
  std::string text;
  sm::launch(sm::threads{2}, [&](World& world) {
    sm::StateDict dict;
    dict.insert(path, sm::Value(sm::Value::List{}));
    sm::load(world, plain_files, dict);
    if (world.rank() == 1) {
      text = sm::to_string(dict.begin()->plain());
    }
  });
  return text;
}

}  // namespace

TEST_SUITE_BEGIN("checkpoint.load_values");

TEST_CASE("a container that PyTorch stored element by element is put together") {
  CHECK(loaded({"list"}) == R"([{"k": 1}, {"k": [2, 3]}])");
  CHECK(loaded({"list", sm::index_t{1}}) == R"({"k": [2, 3]})");
  CHECK(
      loaded({"deep"}) ==
      R"({"a": [{"b": {"c": 1.5, "d": [[1, 2], [{"e": None}]]}}, 7], "tuple": (1, (2, "x")), "empty": []})");
  CHECK(loaded({"deep", "a", sm::index_t{0}}) ==
        R"({"b": {"c": 1.5, "d": [[1, 2], [{"e": None}]]}})");
  CHECK(loaded({"deep", "empty"}) == "[]");
}

TEST_CASE(
    "elements are found in a container that was stored whole, and the reverse, also in streams") {
  test::Scratch const scratch;
  sm::Value const whole =
      sm::Value::Dict{{"epochs", sm::Value::List{1, 2}},
                      {"stages", sm::Value::List{sm::Value::Dict{{"lr", 0.5}}, sm::Value::Dict{},
                                                 sm::Value::List{}}},
                      {"nothing", sm::Value::Dict{}}};
  on_two([&](World& world) {
    sm::StateDict saved;
    saved.insert("run", whole);
    std::ostringstream stream;
    sm::save_stream(stream, saved);  // whole
    sm::save(world, scratch / "c", saved);
    std::vector<std::string> const keys = sm::DcpCatalog<>(scratch / "c").keys();
    CHECK(keys == std::vector<std::string>{"run.epochs", "run.stages.0.lr", "run.stages.1",
                                           "run.stages.2", "run.nothing"});
    for (bool const is_stream : {false, true}) {
      sm::StateDict parts;
      parts.insert({"run", "stages", sm::index_t{0}, "lr"}, sm::Value());
      parts.insert(Path{"run", "epochs"}, sm::Value());
      sm::StateDict dict;
      dict.insert("run", sm::Value(7));
      for (sm::StateDict* one : {&parts, &dict}) {
        std::istringstream in(stream.str());
        is_stream ? sm::load_stream(in, *one)
                  : static_cast<void>(sm::load(world, scratch / "c", *one));
      }
      CHECK(parts.at("run.stages.0.lr").plain() == sm::Value(0.5));
      CHECK(parts.at("run.epochs").plain() == sm::Value(sm::Value::List{1, 2}));
      CHECK(dict.at("run").plain() == whole);
    }
    sm::StateDict from;
    from.insert({"run", "stages", sm::index_t{0}, "lr"}, sm::Value(0.25));
    sm::StateDict dict;
    dict.insert("run", sm::Value());
    sm::load_state_dict(world, dict, from);
    CHECK(to_string(dict.at("run").plain()) == R"({"stages": [{"lr": 0.25}]})");
    sm::load_state_dict(world, from, saved);
    CHECK(from.at("run.stages.0.lr").plain() == sm::Value(0.5));
  });
}

TEST_CASE("an element that would take another value's key is refused before anything is written") {
  test::Scratch const scratch;
  on_two([&](World& world) {
    sm::StateDict dict;
    dict.insert("run", sm::Value(sm::Value::Dict{{"lr", 0.5}}));
    dict.insert("run.lr", sm::Value(1));
    auto const text = test::error_of<sm::KeyError>([&] { sm::save(world, scratch / "c", dict); });
    CHECK(text.find("an element of \"run\" has the key of another value, \"run.lr\"") !=
          std::string::npos);
    CHECK_FALSE(test::fs::exists(scratch / "c"));
  });
}

TEST_CASE("tensors below a plain value, and parts that are missing, are told") {
  test::Scratch const scratch;
  on_two([&](World& world) {
    sm::StateDict saved;
    saved.insert(Path{"a", "weight"}, Host::zeros({2}));
    saved.insert(Path{"a", "n"}, sm::Value(1));
    sm::save(world, scratch / "c", saved);
    sm::StateDict dict;
    dict.insert("a", sm::Value(7));
    auto text = test::error_of<sm::KeyError>([&] { sm::load(world, scratch / "c", dict); });
    CHECK(text.find("\"a.weight\" is a tensor, the state dict has the plain value \"a\"") !=
          std::string::npos);
    text = test::error_of<sm::Error>([&] { sm::load_state_dict(world, dict, saved); });
    CHECK(text.find("\"a.weight\" is a tensor") != std::string::npos);
    CHECK(dict.at("a").plain() == sm::Value(7));
    sm::StateDict other;
    other.insert(Path{"a", "m"}, sm::Value());
    text = test::error_of<sm::KeyError>([&] { sm::load(world, scratch / "c", other); });
    CHECK(text.find("has no \"a.m\"") != std::string::npos);
  });
}

TEST_CASE("numbers of numpy are the numbers that they are") {
  for (char const* kind :
       {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"}) {
    CHECK_MESSAGE(loaded({"numpy", kind}) == "7", kind);
  }
  CHECK(loaded({"numpy", "float16"}) == "7.0");
  CHECK(loaded({"numpy", "float32"}) == "7.0");
  CHECK(loaded({"numpy", "float64"}) == "0.1");
  CHECK(loaded({"numpy", "swapped"}) == "0.1");
  CHECK(loaded({"numpy", "bool_"}) == "True");
  CHECK(loaded({"numpy", "negative"}) == "-9223372036854775808");
  CHECK(loaded({"numpy", "inside"}) == "(0.5, [-1])");
  for (char const* kind : {"big", "complex64", "str_"}) {
    CHECK_MESSAGE(loaded({"numpy", kind}).starts_with("<opaque"), kind);
  }
}

TEST_CASE("numbers load into 0-d tensors and 0-d tensors into numbers") {
  on_two([](World& world) {
    auto const steps = scalar(0.0F);
    auto const count = scalar(std::int32_t{0});
    auto const half = scalar(sm::BFloat16(0.0F));
    auto const ready = scalar(false);
    auto const numpy = scalar(std::int64_t{0});
    auto const mesh = sm::device_mesh(world, {2});
    auto const everywhere =
        sm::distribute(scalar(0.0F), mesh, sm::placements<sm::Replicate>, sm::DataSource::own);
    sm::StateDict dict;
    dict.insert("steps", steps);
    dict.insert("half", half);
    dict.insert("ready", ready);
    dict.insert("count", count);  // of int64
    dict.insert("scalar", sm::Value("anything"));
    dict.insert(Path{"numpy", "uint16"}, numpy);
    dict.insert(Path{"numpy", "float32"}, everywhere);
    sm::load(world, plain_files, dict);
    CHECK(value_of(steps) == 3.0F);
    CHECK(value_of(count) == 5);
    CHECK(static_cast<float>(value_of(half)) == 0.5F);
    CHECK(value_of(ready));
    CHECK(value_of(numpy) == 7);
    CHECK(value_of(everywhere.to_local()) == 7.0F);
    CHECK(dict.at("scalar").plain() == sm::Value(0.75));
  });
}

TEST_CASE("a number that a 0-d tensor has not exactly is the dtype policy's business") {
  test::Scratch const scratch;
  on_two([&](World& world) {
    sm::StateDict saved;
    saved.insert("rate", sm::Value(0.1));
    saved.insert("fraction", scalar(2.5F));
    saved.insert("wide", scalar(0.1));
    saved.insert("exact", scalar(0.5));
    saved.insert("text", sm::Value("x"));
    sm::save(world, scratch / "c", saved);
    std::ostringstream stream;
    sm::save_stream(stream, saved);
    auto const load = [&](char const* key, auto const& target, sm::DTypePolicy policy) {
      sm::StateDict dict;
      dict.insert(key, target);
      return sm::load(world, scratch / "c", dict, {.dtype = policy});
    };
    auto const refused = [&](char const* key, auto const& target, sm::DTypePolicy policy) {
      auto const text = test::error_of<sm::Error>([&] { load(key, target, policy); });
      CHECK_MESSAGE(text.find(std::string("\"") + key + "\"") != std::string::npos, text);
      sm::StateDict dict;
      dict.insert(key, target);
      CHECK_THROWS_AS(sm::load_state_dict(world, dict, saved,
                                          {.unexpected = sm::KeyPolicy::ignore, .dtype = policy}),
                      sm::InvalidArgument);
      if (policy == sm::DTypePolicy::error) {
        std::istringstream in(stream.str());
        CHECK_THROWS_AS(sm::load_stream(in, dict), sm::InvalidArgument);
      }
    };
    auto const real = scalar(7.0F);
    auto const integer = scalar(std::int64_t{7});
    using Policy = sm::DTypePolicy;
    refused("rate", real, Policy::error);
    refused("wide", real, Policy::error);
    for (Policy const policy : {Policy::error, Policy::cast}) {
      refused("fraction", integer, policy);
      refused("rate", integer, policy);
      refused("text", real, policy);
    }
    CHECK(value_of(real) == 7.0F);
    CHECK(value_of(integer) == 7);
    CHECK(load("rate", real, Policy::warn).cast ==
          std::vector<std::string>{"rate: float to float32"});
    CHECK(value_of(real) == 0.1F);
    load("exact", real, Policy::error);
    CHECK(value_of(real) == 0.5F);
    load("wide", real, Policy::cast);
    CHECK(value_of(real) == 0.1F);
    load("exact", real, Policy::error);
    sm::StateDict dict;
    dict.insert("wide", real);
    auto const report = sm::load_state_dict(
        world, dict, saved, {.unexpected = sm::KeyPolicy::ignore, .dtype = Policy::warn});
    CHECK(report.cast == std::vector<std::string>{"wide"});
    CHECK(value_of(real) == 0.1F);
  });
}

TEST_CASE("of tied tensors one name suffices, on ranks that have none of its elements, too") {
  test::Scratch const scratch;
  for (bool const by_second : {false, true}) {
    for (int const ranks : {1, 3}) {
      sm::launch(sm::threads{ranks}, [&](World& world) {
        auto const mesh = sm::device_mesh(world, {world.size()});
        auto const make = [&](float first) {
          Host const whole = Host::from({2, 2}, std::vector<float>{first, 2, 3, 4});
          return sm::distribute(whole, mesh, sm::placements<sm::Shard<0>>, sm::DataSource::own);
        };
        sm::StateDict saved;
        saved.insert(by_second ? "head.weight" : "embed.weight", make(1));
        std::string const name = std::to_string(ranks) + (by_second ? "s" : "f");
        sm::save(world, scratch / name, saved);
        sm::save_safetensors(scratch / (name + std::to_string(world.rank()) + ".safetensors"),
                             sm::replicated_state_dict(world, saved));
        world.barrier();
        auto const tied = make(9);
        auto const other = make(9);
        sm::AnyTensor const wanted = make(1);
        sm::StateDict dict;
        dict.insert("embed.weight", tied);
        dict.insert("head.weight", tied);
        CHECK(dict.aliases().size() == (world.rank() < 2 ? 1 : 0));  // the third rank sees no tie
        sm::load(world, scratch / name, dict);
        CHECK(sm::difference(sm::AnyTensor(tied), wanted) == "");
        tied.to_local().span().empty() ? void() : void(tied.to_local().span()[0] = 5);
        sm::load_any(world, scratch / (name + "0.safetensors"), dict);
        CHECK(sm::difference(sm::AnyTensor(tied), wanted) == "");
        if (world.rank() < 2) {
          tied.to_local().span()[0] = 5;
          std::stringstream stream;
          sm::save_stream(stream, saved);
          sm::load_stream(stream, dict);
          CHECK(sm::difference(sm::AnyTensor(tied), wanted) == "");
        }
        // Two tensors of these names, not tied: one is missing.
        sm::StateDict untied;
        untied.insert("embed.weight", other);
        untied.insert("head.weight", wanted);
        if (ranks == 1) {
          CHECK_THROWS_AS(sm::load(world, scratch / name, untied), sm::KeyError);
        }
      });
    }
  }
}

TEST_CASE("two names of one tensor with different values are refused, and nothing is overwritten") {
  test::Scratch const scratch;
  on_two([&](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto const make = [&](float last) {
      Host const whole = Host::from({2, 2}, std::vector<float>{1, 2, 3, last});
      return sm::distribute(whole, mesh, sm::placements<sm::Shard<0>>, sm::DataSource::own);
    };
    auto const tied = make(9);
    sm::StateDict dict;
    dict.insert("a", tied);
    dict.insert("b", tied);
    dict.insert("c", sm::Value(7));
    for (bool const differs : {true, false}) {
      sm::StateDict saved;
      saved.insert("a", make(4));
      saved.insert("b", make(differs ? 5 : 4));  // only the second rank's part differs
      saved.insert("c", sm::Value(8));
      sm::save(world, scratch / "c", saved);
      std::stringstream stream;
      sm::save_stream(stream, saved);
      if (!differs) {
        sm::load(world, scratch / "c", dict);
        CHECK(sm::difference(sm::AnyTensor(tied), sm::AnyTensor(make(4))) == "");
        sm::load_state_dict(world, dict, saved);
        sm::load_stream(stream, dict);
        continue;
      }
      char const* const why = "\"a\" and \"b\" have different values";
      auto text = test::error_of<sm::Error>([&] { sm::load(world, scratch / "c", dict); });
      CHECK_MESSAGE(text.find(why) != std::string::npos, text);
      text = test::error_of<sm::InvalidArgument>([&] { sm::load_state_dict(world, dict, saved); });
      CHECK_MESSAGE(text.find(why) != std::string::npos, text);
      if (world.rank() == 1) {
        text = test::error_of<sm::InvalidArgument>([&] { sm::load_stream(stream, dict); });
        CHECK_MESSAGE(text.find(why) != std::string::npos, text);
      }
      CHECK(sm::difference(sm::AnyTensor(tied), sm::AnyTensor(make(9))) == "");
      CHECK(dict.at("c").plain() == sm::Value(7));
    }
  });
}

TEST_CASE("whole containers: one value each where no tensor is in them, as PyTorch has done until "
          "2.3; a load finds "
          "their elements") {
  test::Scratch const scratch;
  auto const state = [](double rate) {
    sm::StateDict dict;
    Path const group{"optim", "param_groups", sm::index_t{0}};
    auto const in_group = [&group](char const* name) {
      Path path = group;
      path.emplace_back(name);
      return path;
    };
    dict.insert(in_group("lr"), sm::Value(rate));
    dict.insert({"optim", "state", "w", "step"}, scalar(7.0F));
    dict.insert(in_group("params"), sm::Value(sm::Value::List{sm::Value("w")}));
    dict.insert({"optim", "state", "w", "note"}, sm::Value("beside a tensor"));
    dict.insert("extra", sm::Value(sm::Value::Dict{{"epoch", sm::Value(3)}}));
    dict.insert("epochs", sm::Value(sm::Value::List{sm::Value(1), sm::Value(2)}));
    return dict;
  };
  on_two([&](World& world) {
    sm::SaveOptions const whole{.containers = sm::Containers::whole};
    sm::CheckpointManager manager(world, scratch / "kept", {});
    sm::AsyncSaver saver(world, {.save = whole});
    sm::save(world, scratch / "whole", state(0.5), whole);
    manager.save(1, state(0.5), {}, whole);
    saver.save(scratch / "background", state(0.5)).wait();
    for (std::string const& path :
         {scratch / "whole", scratch / "kept/step-1", scratch / "background"}) {
      sm::DcpCatalog<> catalog(path);
      CHECK(catalog.keys() == std::vector<std::string>{"optim.param_groups", "optim.state.w.step",
                                                       "optim.state.w.note", "extra", "epochs"});
      CHECK(sm::to_string(catalog.value("optim.param_groups")) ==
            R"([{"lr": 0.5, "params": ["w"]}])");
      sm::StateDict dict = state(0);
      sm::load(world, path, dict);
      CHECK(dict.at("optim.param_groups.0.lr").plain() == sm::Value(0.5));
      CHECK(dict.at("extra").plain() == state(0).at("extra").plain());
    }
    world.barrier();

    CHECK(test::error_of<sm::MismatchError>([&] {
            sm::save(world, scratch / "whole", state(1),
                     {.containers =
                          world.rank() == 0 ? sm::Containers::whole : sm::Containers::elements});
          }).find("containers") != std::string::npos);
    CHECK(test::error_of<sm::MismatchError>([&] {
            sm::AsyncSaver<World>(world, {.save = world.rank() == 0 ? whole : sm::SaveOptions{}});
          }).find("containers") != std::string::npos);
    // Parameters of ranks are not put together in a group that is one value.
    sm::StateDict own = state(1);
    own.set("optim.param_groups.0.params",
            sm::Value(sm::Value::List{sm::Value("w" + std::to_string(world.rank()))}));
    CHECK(test::error_of<sm::MismatchError>([&] {
            sm::save(world, scratch / "whole", own, whole);
          }).find("optim.param_groups") != std::string::npos);
    sm::StateDict twice = state(1);
    twice.insert("optim.param_groups", sm::Value(1));
    CHECK(test::error_of<sm::KeyError>([&] {
            sm::save(world, scratch / "whole", twice, whole);
          }).find("optim.param_groups") != std::string::npos);
    sm::StateDict dict = state(0);
    sm::load(world, scratch / "whole", dict);
    CHECK(dict.at("optim.param_groups.0.lr").plain() == sm::Value(0.5));
  });
}

TEST_SUITE_END();

}  // namespace load_values_test
