// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/inline_vector.hpp>

#include <list>
#include <numeric>
#include <span>
#include <type_traits>

#include <doctest/doctest.h>

namespace inline_vector_test {

namespace sm = shardmesh;

using Three = sm::InlineVector<int, 3>;

static_assert(std::is_trivially_copyable_v<Three>);
static_assert(Three{1, 2} == Three{1, 2});
static_assert(!(Three{1, 2} == Three{1, 2, 0}));
static_assert(Three(2, 7) == Three{7, 7});
static_assert(Three{}.empty() && Three::capacity() == 3);

TEST_SUITE_BEGIN("core.inline_vector");

TEST_CASE("values are kept in order, at most as many as the capacity") {
  Three values;
  values.push_back(1);
  values.push_back(2);
  values.push_back(3);
  CHECK(values.size() == 3);
  CHECK(values[0] == 1);
  CHECK(values.back() == 3);
  CHECK_THROWS_WITH_AS(values.push_back(4), doctest::Contains("too many dimensions"),
                       sm::ShapeError);
  CHECK_THROWS_AS(Three(4, 0), sm::ShapeError);
  CHECK(values.size() == 3);
}

TEST_CASE("what was taken away does not count in a comparison") {
  Three values{1, 2, 3};
  values.pop_back();
  CHECK(values == Three{1, 2});
  values.clear();
  CHECK(values.empty());
  CHECK(values == Three{});
}

TEST_CASE("any range fills a vector, and a vector is a range and a span") {
  std::list<long> const source{4, 5};
  Three const values(source.begin(), source.end());
  CHECK(std::accumulate(values.begin(), values.end(), 0) == 9);
  std::span<int const> const view = values;
  CHECK(view.size() == 2);
  CHECK(view.data() == values.data());
}

TEST_SUITE_END();

}  // namespace inline_vector_test
