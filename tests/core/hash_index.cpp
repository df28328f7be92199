// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/hash_index.hpp>

#include <cstddef>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <shardmesh/core/address_map.hpp>
#include <shardmesh/core/key_map.hpp>

namespace hash_index_test {

namespace detail = shardmesh::detail;

using detail::HashIndex;

TEST_SUITE_BEGIN("core.hash_index");

TEST_CASE("an index without entries finds nothing") {
  HashIndex const index;
  CHECK(index.find(0, [](std::size_t) { return true; }) == HashIndex::none);
}

TEST_CASE("entries with equal hashes are told apart by the caller, also where they wrap around") {
  for (std::size_t const hash :
       {std::size_t{0}, std::size_t{7}, std::size_t{15}, ~std::size_t{0}}) {
    HashIndex index;
    for (std::size_t position = 0; position < 100; ++position) {
      index.make_room();
      index.add(hash, position);
      REQUIRE(index.find(hash, [](std::size_t) { return true; }) ==
              0);  // the first stays the first
    }
    for (std::size_t position = 0; position < 100; ++position) {
      CHECK(index.find(hash, [&](std::size_t p) { return p == position; }) == position);
    }
    CHECK(index.find(hash, [](std::size_t) { return false; }) == HashIndex::none);
    CHECK(index.find(hash ^ 16U, [](std::size_t) { return true; }) == HashIndex::none);
  }
}

TEST_CASE("keys are found as a map finds them") {
  std::mt19937 random(20);
  detail::KeyList keys;
  detail::KeyMap<int> values;
  std::map<std::string, int> expected;
  std::vector<std::string> order;
  for (int i = 0; i < 20'000; ++i) {
    std::string const key = "layers." + std::to_string(random() % 8000) + ".weight";
    bool const is_new = expected.emplace(key, i).second;
    REQUIRE(keys.contains(key) != is_new);
    REQUIRE(keys.add(key) == is_new);
    REQUIRE(values.add(key, i) == expected.at(key));
    if (is_new) {
      order.push_back(key);
    }
  }
  CHECK(keys.keys() == order);
  CHECK(values.keys() == order);
  CHECK(values.size() == order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    REQUIRE(keys.find(order[i]) == i);
    REQUIRE(values.at(order[i]) == expected.at(order[i]));
  }
  for (int absent = 8000; absent < 9000; ++absent) {
    std::string const key = "layers." + std::to_string(absent) + ".weight";
    REQUIRE(!keys.contains(key));
    REQUIRE(values.find(key) == nullptr);
  }
  CHECK_THROWS_WITH_AS(static_cast<void>(values.at("bias")), doctest::Contains("\"bias\""),
                       shardmesh::KeyError);
}

TEST_CASE("values by address keep the first that was added") {
  std::vector<int> const objects(3000);
  detail::AddressMap<int> numbers;
  for (int i = 0; i < 3000; ++i) {
    numbers.add(&objects[static_cast<std::size_t>(i)], i);
    numbers.add(&objects[static_cast<std::size_t>(i)], -1);
  }
  for (int i = 0; i < 3000; ++i) {
    int const* const found = numbers.find(&objects[static_cast<std::size_t>(i)]);
    REQUIRE(found != nullptr);
    REQUIRE(*found == i);
  }
  CHECK(numbers.find(objects.data() + objects.size()) == nullptr);
}

TEST_SUITE_END();

}  // namespace hash_index_test
