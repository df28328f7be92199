// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/value_tree.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace value_tree_test {

namespace sm = shardmesh;

namespace {

using Path = std::vector<sm::PathElement>;

sm::index_t at(sm::index_t index) {
  return index;
}

std::string built(std::vector<std::pair<Path, sm::Value>> const& parts) {
  sm::ValueTree tree;
  for (auto const& [path, value] : parts) {
    tree.add(path, value);
  }
  return sm::to_string(std::move(tree).finish());
}

}  // namespace

TEST_SUITE_BEGIN("core.value_tree");

TEST_CASE("as gives any integer type that has the value, and float") {
  sm::Value const seven(7);
  CHECK(seven.as<int>() == 7);
  CHECK(seven.as<unsigned char>() == 7);
  CHECK(seven.as<long long>() == 7);
  CHECK(sm::Value(-128).as<signed char>() == -128);
  CHECK(sm::Value(0.5).as<float>() == 0.5F);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::Value(-1).as<std::size_t>()),
                       doctest::Contains("the integer is -1, which the type asked for has not"),
                       sm::InvalidArgument);
  CHECK_THROWS_AS(static_cast<void>(sm::Value(std::int64_t{1} << 32).as<unsigned>()),
                  sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::Value(1.0).as<int>()),
                       doctest::Contains("of the kind float, not of the kind asked for"),
                       sm::InvalidArgument);
}

TEST_CASE("containers are put together of their elements, dicts in order, lists by index") {
  CHECK(built({}) == "None");
  CHECK(built({{{}, 7}}) == "7");
  CHECK(built({{{"b"}, 1}, {{"a"}, sm::Value::List{2, 3}}}) == R"({"b": 1, "a": [2, 3]})");
  CHECK(built({{{at(1), "k"}, 1}, {{at(0), "k"}, 2}}) == R"([{"k": 2}, {"k": 1}])");
  CHECK(built({{{"a", at(0), "x", at(0)}, 1}, {{"a", at(0), "x", at(1)}, 2}}) ==
        R"({"a": [{"x": [1, 2]}]})");
  CHECK(built({{{"7"}, 1}, {{at(7)}, 2}}) == R"({"7": 1, "7": 2})");
}

TEST_CASE("what an empty dict stood for is None") {
  CHECK(built({{{at(2), "k"}, 1}}) == R"([None, None, {"k": 1}])");
}

TEST_CASE("values that do not fit together are refused, and lists that are nearly all gaps") {
  CHECK_THROWS_WITH_AS(built({{{"a"}, 1}, {{"a"}, 2}}), doctest::Contains("\"a\" is given twice"),
                       sm::InvalidArgument);
  CHECK_THROWS_AS(built({{{"a"}, 1}, {{"a", "b"}, 2}}), sm::InvalidArgument);
  CHECK_THROWS_AS(built({{{"a", "b"}, 1}, {{"a"}, 2}}), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(built({{{at(1'000'000'000'000)}, 1}}), doctest::Contains("1000000000000"),
                       sm::InvalidArgument);
  std::vector<std::pair<Path, sm::Value>> many;
  for (sm::index_t i = 0; i < 10; ++i) {
    many.push_back({{at(i), at(1000), "x"}, 1});
  }
  CHECK_THROWS_AS(built(many), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(built({{Path(65, sm::PathElement("d")), 1}}), doctest::Contains("deeper"),
                       sm::InvalidArgument);
}

TEST_CASE("a step of a path is found in a list or a dict") {
  sm::Value const list(sm::Value::List{1, 2});
  sm::Value const dict(sm::Value::Dict{{"0", 3}});
  REQUIRE(sm::element_of(list, at(1)) != nullptr);
  CHECK(*sm::element_of(list, at(1)) == sm::Value(2));
  CHECK(sm::element_of(list, at(2)) == nullptr);
  CHECK(sm::element_of(list, "1") == nullptr);
  REQUIRE(sm::element_of(dict, "0") != nullptr);
  CHECK(sm::element_of(dict, at(0)) == nullptr);
}

TEST_SUITE_END();

}  // namespace value_tree_test
