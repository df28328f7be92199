// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/layout/chunk.hpp>

#include <algorithm>
#include <vector>

#include <doctest/doctest.h>

namespace chunk_test {

namespace sm = shardmesh;

using sm::index_t;
using sm::Interval;

static_assert(sm::chunk(5, 4, 0) == Interval{0, 2});
static_assert(sm::chunk(5, 4, 2) == Interval{4, 5});
static_assert(sm::chunk(5, 4, 3) == Interval{5, 5});
static_assert(sm::chunk(0, 3, 1) == Interval{0, 0});

namespace {

std::vector<index_t> elements(std::vector<Interval> const& ranges) {
  std::vector<index_t> all;
  for (Interval const& range : ranges) {
    for (index_t i = range.lo; i < range.hi; ++i) {
      all.push_back(i);
    }
  }
  return all;
}

}  // namespace

TEST_SUITE_BEGIN("layout.chunk");

TEST_CASE("chunk: chunks lie one behind the other, full ones first, and hold everything") {
  for (index_t length = 0; length <= 40; ++length) {
    for (index_t count = 1; count <= 12; ++count) {
      index_t const size = (length + count - 1) / count;
      index_t end = 0;
      for (index_t index = 0; index < count; ++index) {
        Interval const part = sm::chunk(length, count, index);
        REQUIRE(part.lo == end);
        REQUIRE(part.size() == std::min(size, length - end));
        end = part.hi;
      }
      REQUIRE(end == length);
    }
  }
}

TEST_CASE("chunk: numbers near the largest do not overflow") {
  index_t const huge = (index_t{1} << 62) + 1;
  CHECK(sm::chunk(huge, 2, 0).size() == (index_t{1} << 61) + 1);
  CHECK(sm::chunk(huge, 2, 1).hi == huge);
}

TEST_CASE("cut: ranks share every piece by the chunk rule") {
  for (index_t length = 0; length <= 20; ++length) {
    for (index_t factor = 1; factor <= 4; ++factor) {
      for (index_t count = 1; count <= 4; ++count) {
        std::vector<index_t> seen(static_cast<std::size_t>(length), 0);
        for (index_t index = 0; index < count; ++index) {
          auto const kept = sm::detail::cut({{0, length}}, length, factor, count, index);
          for (index_t i : elements(kept)) {
            ++seen[static_cast<std::size_t>(i)];
            Interval piece;
            for (index_t p = 0; p < factor && piece.hi <= i; ++p) {
              piece = sm::chunk(length, factor, p);
            }
            Interval const part = sm::chunk(piece.size(), count, index);
            REQUIRE(i - piece.lo >= part.lo);
            REQUIRE(i - piece.lo < part.hi);
          }
          REQUIRE(sm::detail::total(kept) == static_cast<index_t>(elements(kept).size()));
        }
        REQUIRE(seen == std::vector<index_t>(static_cast<std::size_t>(length), 1));
      }
    }
  }
}

TEST_CASE("cut: of a sequence of ranges; neighbours become one") {
  // Elements 0 1 | 4 5 | 8 9; the second of two ranks keeps the last three.
  std::vector<Interval> const ranges{{0, 2}, {4, 6}, {8, 10}};
  CHECK(sm::detail::cut(ranges, 6, 1, 2, 1) == std::vector<Interval>{{5, 6}, {8, 10}});
  CHECK(sm::detail::cut(ranges, 6, 3, 2, 0) == std::vector<Interval>{{0, 1}, {4, 5}, {8, 9}});
  CHECK(sm::detail::cut({{0, 4}}, 4, 2, 1, 0) == std::vector<Interval>{{0, 4}});
  CHECK(sm::detail::total({}) == 0);
}

TEST_SUITE_END();

}  // namespace chunk_test
