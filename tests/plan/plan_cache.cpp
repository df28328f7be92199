// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/plan/plan_cache.hpp>

#include <memory>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/layout/placements.hpp>

namespace plan_cache_test {

namespace sm = shardmesh;

using sm::Layout;

namespace {

Layout rows(sm::index_t n) {
  return {{n}, {2}, sm::placements<sm::Shard<0>>};
}
Layout whole(sm::index_t n) {
  return {{n}, {2}, sm::placements<sm::Replicate>};
}

}  // namespace

TEST_SUITE_BEGIN("plan.plan_cache");

TEST_CASE("plan cache: a plan is made once, and is what make_plan makes") {
  sm::PlanCache cache;
  auto const first = cache.get(rows(6), whole(6), 1);
  CHECK(cache.get(rows(6), whole(6), 1) == first);
  CHECK(cache.hits() == 1);
  CHECK(first->plan == sm::make_plan(rows(6), whole(6)));
  REQUIRE(first->steps.size() == 1);
  CHECK(first->steps[0] == first->plan.rank_step(0, 1));
  CHECK(cache.get(whole(6), rows(6), 1) != first);
  CHECK(cache.get(rows(7), whole(7), 1) != first);
  CHECK(cache.size() == 3);
}

TEST_CASE("plan cache: the oldest make room, and what was handed out stays") {
  sm::PlanCache cache;
  auto const kept = cache.get(rows(1), whole(1), 0);
  for (sm::index_t n = 2; n < 1000; ++n) {
    static_cast<void>(cache.get(rows(n), whole(n), 0));
    CHECK(cache.size() <= sm::PlanCache::capacity);
  }
  CHECK(cache.hits() == 0);
  CHECK(kept->plan.from() == sm::Holding(rows(1)));
  auto const again = cache.get(rows(1), whole(1), 0);
  CHECK(again != kept);
  CHECK(again->plan == kept->plan);
  static_cast<void>(cache.get(rows(999), whole(999), 0));
  CHECK(cache.hits() == 1);
}

TEST_CASE("plan cache: what cannot be planned is refused each time, and not kept") {
  sm::PlanCache cache;
  Layout const sum({4}, {2}, sm::placements<sm::Partial<>>);
  for (int i = 0; i < 2; ++i) {
    CHECK_THROWS_AS(static_cast<void>(cache.get(rows(4), sum, 0)), sm::InvalidArgument);
  }
  CHECK(cache.size() == 0);
}

TEST_SUITE_END();

}  // namespace plan_cache_test
