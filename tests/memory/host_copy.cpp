// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/host_copy.hpp>

#include <doctest/doctest.h>

#include "boxes.hpp"

namespace host_copy_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("memory.host_copy");

TEST_CASE("a copy moves the same bytes as element by element, and no others") {
  boxes::Generator random(2);
  for (int round = 0; round < 3000; ++round) {
    boxes::Case const box = random.box();
    CAPTURE(box.extent);
    auto const source = random.bytes(box.source.bytes);
    auto expected = random.bytes(box.destination.bytes);
    auto result = expected;
    boxes::naive_copy(box.copy(source.data(), expected.data()));
    sm::host_copy(sm::collapse(box.copy(source.data(), result.data())));
    REQUIRE(result == expected);
  }
}

TEST_CASE("a matrix is transposed through its strides") {
  std::vector<int> const matrix{1, 2, 3, 4, 5, 6};  // (2, 3)
  std::vector<int> turned(6);                       // (3, 2)
  sm::host_copy(sm::collapse({matrix.data(), turned.data(), {2, 3}, {12, 4}, {4, 8}, 4}));
  CHECK(turned == std::vector<int>{1, 4, 2, 5, 3, 6});
}

TEST_CASE("nothing is copied of a box without elements, null addresses are fine") {
  sm::host_copy(sm::collapse({nullptr, nullptr, {0}, {4}, {4}, 4}));
}

TEST_SUITE_END();

}  // namespace host_copy_test
