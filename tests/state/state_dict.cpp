// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/state/any_tensor.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/role.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/tensor_difference.hpp>
#include <shardmesh/state/visit.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <memory>
#include <numeric>
#include <optional>
#include <string_view>

#include <doctest/doctest.h>

namespace state_dict_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using sm::Tensor;

namespace {

Tensor<float> counting(sm::Shape const& shape, float start = 0) {
  Tensor<float> tensor(shape);
  std::iota(tensor.span().begin(), tensor.span().end(), start);
  return tensor;
}

struct Layer {
  Tensor<float> weight = counting({2, 2});
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
  }
};

struct Net {
  std::vector<Layer> layers{2};
  std::optional<Layer> head;
  std::unique_ptr<Layer> tail = std::make_unique<Layer>();
  int epoch = 3;
  bool frozen = true;
  double rate = 0.5;
  std::string name = "run";
  template <class V>
  void visit(V&& v) {
    v("layers", layers);
    v("head", head);
    v("tail", tail);
    v("epoch", epoch);
    v("frozen", frozen);
    v("rate", rate);
    v("name", name);
  }
};

}  // namespace

namespace outside {

// Opts in by a function of its namespace instead of a member.
struct Foreign {
  Tensor<float> scale = counting({3});
};
template <class V>
void visit(Foreign& foreign, V&& v) {
  v("scale", foreign.scale);
}

}  // namespace outside

TEST_SUITE_BEGIN("state.state_dict");

TEST_CASE(
    "state_dict: names of nested members, vectors, optionals and owners are joined with dots") {
  Net net;
  std::vector<std::string> keys;
  for (sm::StateEntry const& entry : sm::state_dict(net)) {
    keys.push_back(entry.key);
  }
  CHECK(keys == std::vector<std::string>{"layers.0.weight", "layers.1.weight", "tail.weight",
                                         "epoch", "frozen", "rate", "name"});
  net.head.emplace();
  CHECK(sm::state_dict(net).contains("head.weight"));
  outside::Foreign foreign;
  CHECK(sm::state_dict(foreign).contains("scale"));
}

TEST_CASE("state_dict: plain leaves keep their kind") {
  Net net;
  auto const dict = sm::state_dict(net);
  CHECK(dict.at("epoch").plain() == sm::Value(3));
  CHECK(dict.at("frozen").plain() == sm::Value(true));
  CHECK(dict.at("rate").plain() == sm::Value(0.5));
  CHECK(dict.at("name").plain() == sm::Value("run"));
}

TEST_CASE("state_dict: tensors are shared with the model, not copied") {
  Net net;
  auto const dict = sm::state_dict(net);
  CHECK(dict.at("tail.weight").tensor().data() == net.tail->weight.data());
  dict.at("tail.weight").tensor().assign(std::vector<std::byte>(16, std::byte{0}));
  CHECK(net.tail->weight.span()[3] == 0.0F);
}

TEST_CASE("state_dict: nested dicts keep paths; keys join them") {
  Net net;
  sm::StateDict const dict{{"model", sm::state_dict(net)}};
  auto const& entry = dict.at("model.layers.0.weight");
  CHECK(entry.path == std::vector<sm::PathElement>{"model", "layers.0.weight"});
}

TEST_CASE("state_dict: a list in braces is a path, whatever is in it") {
  std::string const layer = "layers.0";
  std::string_view const view = "view";
  sm::StateDict dict;
  dict.insert({"optim", "lr"}, sm::Value(0.5));  // two literals
  dict.insert({"state", layer, "step"}, sm::Value(1));
  dict.insert({"one"}, sm::Value(2));
  dict.insert(layer, sm::Value(3));
  dict.insert(view, sm::Value(4));
  using Path = std::vector<sm::PathElement>;
  CHECK(dict.at("optim.lr").path == Path{"optim", "lr"});
  CHECK(dict.at("state.layers.0.step").path == Path{"state", layer, "step"});
  CHECK(dict.at("one").path == Path{"one"});
  CHECK(dict.at("layers.0").path == Path{layer});
  CHECK(dict.at("view").path == Path{"view"});
}

TEST_CASE("state_dict: bad keys are refused with what there is") {
  Net net;
  auto dict = sm::state_dict(net);
  CHECK_THROWS_WITH_AS(dict.insert("epoch", sm::Value(1)),
                       doctest::Contains("two values have the key \"epoch\""), sm::KeyError);
  CHECK_THROWS_WITH_AS(static_cast<void>(dict.at("nothing")),
                       doctest::Contains("no value has the key \"nothing\""), sm::KeyError);
  CHECK_THROWS_WITH_AS(dict.set("tail.weight", sm::Value(1)), doctest::Contains("holds a tensor"),
                       sm::KeyError);
}

TEST_CASE("full_state_dict: everything on the first rank, nothing on the others") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    sm::StateDict dict;
    dict.insert("a", sm::AnyTensor(sm::distribute(counting({7, 5}), mesh,
                                                  sm::placements<sm::Replicate, sm::Shard<0>>)));
    dict.insert("step", sm::AnyTensor(counting({}, 4)));
    dict.insert("lr", sm::Value(0.1));
    auto const full = sm::full_state_dict(dict);
    CHECK(full.size() == (world.rank() == 0 ? 3 : 0));
    if (world.rank() == 0) {
      CHECK(full.at("a").tensor().shape() == sm::Shape{7, 5});
      CHECK(!full.at("a").tensor().is_distributed());
      CHECK(sm::difference(full.at("a").tensor(), sm::AnyTensor(counting({7, 5}))) == "");
    }
  });
}

TEST_CASE("offloaded: equal in everything where the state was in host memory, and a copy") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto const t =
        sm::distribute(counting({7, 5}), mesh, sm::placements<sm::Shard<1>, sm::Shard<0>>);
    sm::StateDict dict;
    dict.insert("a", sm::AnyTensor(t));
    auto const copy = sm::offloaded(dict);
    CHECK(sm::difference(dict, copy) == "");
    if (t.to_local().size() > 0) {
      CHECK(copy.at("a").tensor().data() != dict.at("a").tensor().data());
      t.to_local().span()[0] += 1;
      CHECK(sm::difference(dict, copy) == "\"a\": values, first at local index (0, 0)");
    }
  });
}

TEST_CASE("difference: names what differs") {
  auto const plain = [](Tensor<float> const& tensor) {
    sm::StateDict dict;
    dict.insert("a", sm::AnyTensor(tensor));
    return dict;
  };
  auto const a = plain(counting({2, 2}));
  CHECK(sm::difference(a, plain(counting({4}))) == "\"a\": shape (2, 2) against (4)");
  CHECK(sm::difference(a, sm::StateDict{}) == "1 keys against 0");
  sm::StateDict other;
  other.insert("b", sm::AnyTensor(counting({2, 2})));
  CHECK(sm::difference(a, other) == "key \"a\" against \"b\"");
  sm::StateDict value;
  value.insert("a", sm::Value(1));
  CHECK(sm::difference(a, value) == "\"a\": a tensor against a plain value");
  CHECK(sm::difference(sm::AnyTensor(counting({2})), sm::AnyTensor(Tensor<int>::zeros({2}))) ==
        "dtype float32 against int32");
}

TEST_SUITE_END();

namespace {

struct Normalised {
  Tensor<float> scale = counting({2});
  Tensor<float> mean = counting({2});
  Tensor<float> cache = counting({2});
  Layer fixed;
  template <class V>
  void visit(V&& v) {
    v("scale", scale);
    v("mean", sm::buffer(mean));
    v("cache", sm::transient(cache));
    v("fixed", sm::frozen(fixed));
  }
};

}  // namespace

TEST_CASE(
    "members have roles; what is in a tagged member inherits them; transient ones are no state") {
  Normalised model;
  std::vector<std::pair<std::string, sm::Role>> seen;
  sm::for_each_leaf(model, [&seen](std::string const& name, auto&, sm::Role role) {
    seen.emplace_back(name, role);
  });
  CHECK(seen == std::vector<std::pair<std::string, sm::Role>>{{"scale", sm::Role::parameter},
                                                              {"mean", sm::Role::buffer},
                                                              {"cache", sm::Role::transient},
                                                              {"fixed.weight", sm::Role::frozen}});
  auto const state = sm::state_dict(model);
  CHECK(state.size() == 3);
  CHECK(!state.contains("cache"));
}

TEST_CASE("a sharded tensor in a state dict: kind, offload, gather to the first of all ranks") {
  sm::launch(sm::threads{4}, [](World& world) {
    World const shard = world.split(world.rank() / 2, world.rank());
    World const replicate = world.split(world.rank() % 2, world.rank());
    sm::ShardedTensor<float, World> const tensor(
        shard, replicate, sm::Shape{2, 2}, counting({1, 2}, static_cast<float>(2 * shard.rank())));
    sm::AnyTensor const any(tensor);
    CHECK(any.kind() == sm::TensorKind::sharded);
    CHECK(any.is_distributed());
    CHECK(any.is_first() == (world.rank() == 0));
    CHECK(any.get<sm::ShardedTensor<float, World>>() != nullptr);
    CHECK(any.get<Tensor<float>>() == nullptr);
    CHECK(sm::difference(any, any.offloaded()) == "");
    sm::StateDict dict;
    dict.insert("x", any);
    auto const full = sm::full_state_dict(dict);
    CHECK(full.size() == (world.rank() == 0 ? 1U : 0U));
    if (world.rank() == 0) {
      CHECK(sm::difference(full.at("x").tensor(), sm::AnyTensor(counting({2, 2}))) == "");
    }
  });
}

}  // namespace state_dict_test
