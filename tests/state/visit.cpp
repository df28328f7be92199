// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/state/reflect.hpp>
#include <shardmesh/state/visit.hpp>

#include <array>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/state/state_dict.hpp>

namespace visit_test {

namespace sm = shardmesh;

using sm::Tensor;

namespace {

// Opts in by the names of its members.
struct Linear {
  Tensor<float> weight = Tensor<float>::zeros({2, 2});
  Tensor<float> bias = Tensor<float>::zeros({2});
  static constexpr std::array member_names{"weight", "bias"};
};

struct Sixteen {
  int a = 0, b = 1, c = 2, d = 3, e = 4, f = 5, g = 6, h = 7;
  int i = 8, j = 9, k = 10, l = 11, m = 12, n = 13, o = 14, p = 15;
  static constexpr std::array member_names{"a", "b", "c", "d", "e", "f", "g", "h",
                                           "i", "j", "k", "l", "m", "n", "o", "p"};
};

struct Containers {
  std::array<Linear, 2> blocks;
  std::tuple<Linear, int> sequence;
  std::map<std::string, Tensor<float>> experts{{"b", Tensor<float>::zeros({1})},
                                               {"a", Tensor<float>::zeros({1})}};
  std::shared_ptr<Linear> shared = std::make_shared<Linear>();
  std::vector<int> steps{1, 2, 3};
  std::vector<float> rates{0.5F};
  std::vector<std::string> tags{"x", "y"};
  std::vector<bool> mask{true, false};
  sm::Value extra = sm::Value::Tuple{{1, "two"}};
  template <class V>
  void visit(V&& v) {
    v("blocks", blocks);
    v("sequence", sequence);
    v("experts", experts);
    v("shared", shared);
    v("steps", steps);
    v("rates", rates);
    v("tags", tags);
    v("mask", mask);
    v("extra", extra);
  }
};

template <class Model>
std::vector<std::string> names_of(Model& model) {
  std::vector<std::string> names;
  sm::for_each_leaf(model, [&names](std::string const& name, auto&) { names.push_back(name); });
  return names;
}

struct Tied {
  Tensor<float> embedding = Tensor<float>::zeros({3, 2});
  Tensor<float> head = embedding;
  Tensor<float> other = Tensor<float>::zeros({3, 2});
  static constexpr std::array member_names{"embedding", "head", "other"};
};

}  // namespace

TEST_SUITE_BEGIN("state.visit");

TEST_CASE("an aggregate that names its members needs no visit()") {
  Linear linear;
  CHECK(names_of(linear) == std::vector<std::string>{"weight", "bias"});
  Linear const constant;
  CHECK(names_of(constant) == std::vector<std::string>{"weight", "bias"});
  CHECK(sm::state_dict(linear).at("bias").tensor().data() == linear.bias.data());
  Sixteen many;
  int sum = 0;
  sm::for_each_member(many, [&sum](std::string_view name, int& value) {
    CHECK(name[0] == static_cast<char>('a' + value));
    sum += value;
  });
  CHECK(sum == 120);
}

TEST_CASE("arrays and tuples are numbered, maps named by their keys, owners seen through") {
  Containers model;
  CHECK(names_of(model) ==
        std::vector<std::string>{"blocks.0.weight", "blocks.0.bias", "blocks.1.weight",
                                 "blocks.1.bias", "sequence.0.weight", "sequence.0.bias",
                                 "sequence.1", "experts.a", "experts.b", "shared.weight",
                                 "shared.bias", "steps", "rates", "tags", "mask", "extra"});
}

TEST_CASE("vectors of numbers and strings are lists, values what they are") {
  Containers model;
  auto const dict = sm::state_dict(model);
  CHECK(dict.at("steps").plain() == sm::Value(sm::Value::List{1, 2, 3}));
  CHECK(dict.at("rates").plain() == sm::Value(sm::Value::List{0.5}));
  CHECK(dict.at("tags").plain() == sm::Value(sm::Value::List{"x", "y"}));
  CHECK(dict.at("mask").plain() == sm::Value(sm::Value::List{true, false}));
  CHECK(dict.at("extra").plain() == model.extra);
}

TEST_CASE("tied tensors: every name is there, the aliases tell which share their elements") {
  Tied model;
  auto const dict = sm::state_dict(model);
  CHECK(dict.size() == 3);
  using Aliases = std::vector<std::pair<std::string, std::string>>;
  CHECK(dict.aliases() == Aliases{{"head", "embedding"}});
  auto const copy = sm::offloaded(dict);
  CHECK(copy.aliases() == dict.aliases());
  CHECK(copy.at("head").tensor().data() != model.head.data());
  sm::StateDict const nested{{"model", dict}};
  CHECK(nested.aliases() == Aliases{{"model.head", "model.embedding"}});
  // Empty tensors share no elements.
  sm::StateDict empty;
  empty.insert("a", sm::AnyTensor(Tensor<float>()));
  empty.insert("b", sm::AnyTensor(Tensor<float>()));
  CHECK(empty.aliases().empty());
}

TEST_SUITE_END();

}  // namespace visit_test
