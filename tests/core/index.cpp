// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/index.hpp>

#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

namespace index_test {

namespace sm = shardmesh;

using sm::index_t;

static_assert(sm::ceil_div(7, 2) == 4);
static_assert(sm::ceil_div(8, 2) == 4);
static_assert(sm::ceil_div(0, 3) == 0);
static_assert(sm::ceil_div(std::numeric_limits<index_t>::max(), 2) == index_t{1} << 62);
static_assert(sm::checked_mul(-3, 5) == -15);
static_assert(sm::checked_add(-3, 5) == 2);

TEST_SUITE_BEGIN("core.index");

TEST_CASE("products and sums beyond 63 bits are refused") {
  index_t const most = std::numeric_limits<index_t>::max();
  CHECK(sm::checked_mul(most, 1) == most);
  CHECK(sm::checked_add(most, 0) == most);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::checked_mul(most / 2 + 1, 2)),
                       doctest::Contains("product of extents"), sm::ShapeError);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::checked_add(most, 1)),
                       doctest::Contains("sum of extents"), sm::ShapeError);
}

TEST_CASE("a checked cast keeps the value or throws") {
  CHECK(sm::checked_cast<int>(index_t{-5}) == -5);
  CHECK(sm::checked_cast<std::uint8_t>(255) == 255);
  CHECK_THROWS_AS(static_cast<void>(sm::checked_cast<std::uint8_t>(256)), sm::ShapeError);
  CHECK_THROWS_AS(static_cast<void>(sm::checked_cast<std::size_t>(index_t{-1})), sm::ShapeError);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::checked_cast<int>(index_t{1} << 31)),
                       doctest::Contains("does not fit"), sm::ShapeError);
}

TEST_SUITE_END();

}  // namespace index_test
