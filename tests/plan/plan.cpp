// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/plan/plan.hpp>

#include <doctest/doctest.h>

#include "../support/simulate.hpp"

namespace plan_test {

namespace sm = shardmesh;

using sm::Layout;
using sm::Placement;
using sm::PlacementList;
using sm::Shape;

// The planner runs in the compiler.
constexpr Layout rows({8, 6}, {2, 2}, sm::placements<sm::Shard<0>, sm::Shard<1>>);
constexpr Layout swapped({8, 6}, {2, 2}, sm::placements<sm::Shard<1>, sm::Shard<0>>);
// A pair swap suffices for S0,S1 -> S1,S0 where per-dimension planning gathers.
static_assert(sm::make_plan(rows, swapped).steps() == 1);
static_assert(sm::moves(rows, swapped, 0).sends.empty());
static_assert(sm::moves(rows, swapped, 1).sends.size() == 1);
static_assert(sm::moves(rows, swapped, 1).sends[0].peer == 2);

TEST_SUITE_BEGIN("plan.plan");

namespace {

std::vector<PlacementList> all_placements(std::size_t tensor_rank, std::size_t mesh_rank) {
  std::vector<Placement> choices{sm::Replicate{}, sm::Partial<>{}};
  for (std::size_t d = 0; d < tensor_rank; ++d) {
    choices.push_back(sm::Shard{static_cast<int>(d)});
    if (mesh_rank < 3) {
      choices.push_back(Placement::strided(static_cast<int>(d), 2));
    }
  }
  std::vector<PlacementList> lists{PlacementList{}};
  for (std::size_t m = 0; m < mesh_rank; ++m) {
    std::vector<PlacementList> next;
    for (PlacementList const& list : lists) {
      for (Placement const& choice : choices) {
        next.push_back(list);
        next.back().push_back(choice);
      }
    }
    lists = next;
  }
  return lists;
}

}  // namespace

TEST_CASE("plan: every legal pair of placements on small meshes gives what cutting would give") {
  long cases = 0;
  std::vector<Shape> const meshes{{1}, {2}, {3}, {5}, {2, 2}, {2, 3}, {3, 1}, {2, 2, 2}};
  for (Shape const& mesh : meshes) {
    std::vector<Shape> shapes{{}, {0, 2}, {5}, {7, 3}, {2, 3, 3}};
    if (mesh.size() == 3) {
      shapes = {{5}, {7, 3}};
    }
    for (Shape const& shape : shapes) {
      auto const lists = all_placements(shape.size(), mesh.size());
      for (PlacementList const& a : lists) {
        for (PlacementList const& b : lists) {
          if (!sm::detail::conversion_is_legal(a, b)) {
            continue;
          }
          Layout const from(shape, mesh, a);
          Layout const to(shape, mesh, b);
          auto const got = test::run_plan(sm::make_plan(from, to), test::locals_of(from, from));
          bool const equal = got == test::locals_of(to, from);
          INFO(sm::to_string(from), " -> ", sm::to_string(to));
          REQUIRE(equal);
          ++cases;
        }
      }
    }
  }
  MESSAGE(cases << " pairs");
  CHECK(cases > 10000);
}

TEST_CASE("plan: between meshes of different shapes and sizes") {
  std::vector<Shape> const meshes{{1}, {2}, {3}, {4}, {2, 2}, {1, 4}, {2, 3}, {6}};
  long cases = 0;
  for (Shape const& m1 : meshes) {
    for (Shape const& m2 : meshes) {
      for (PlacementList const& a : test::shard_placements(2, m1.size())) {
        for (PlacementList const& b : test::shard_placements(2, m2.size())) {
          if (m1.size() + m2.size() == 4 && (cases++ % 7) != 0) {
            continue;
          }
          Layout const from({7, 5}, m1, a);
          Layout const to({7, 5}, m2, b);
          bool const equal = test::run_plan(sm::make_plan(from, to), test::locals_of(from, from)) ==
                             test::locals_of(to, from);
          INFO(sm::to_string(from), " -> ", sm::to_string(to));
          REQUIRE(equal);
        }
      }
    }
  }
}

TEST_CASE("plan: orders of cuts other than left to right") {
  PlacementList const list{Placement::strided(0, 2), sm::Shard{0}};
  for (sm::index_t n = 0; n < 20; ++n) {
    Layout const physical = Layout::with_order({n, 3}, {3, 2}, sm::physical_order(list, {3, 2}));
    Layout const plain({n, 3}, {3, 2}, sm::placements<sm::Shard<0>, sm::Shard<1>>);
    bool const there =
        test::run_plan(sm::make_plan(plain, physical), test::locals_of(plain, plain)) ==
        test::locals_of(physical, physical);
    bool const back =
        test::run_plan(sm::make_plan(physical, plain), test::locals_of(physical, physical)) ==
        test::locals_of(plain, plain);
    CHECK(there);
    CHECK(back);
  }
}

TEST_CASE("plan: sums and averages on different mesh dimensions are reduced one after the other") {
  Layout const mixed({4}, {2, 2}, sm::placements<sm::Partial<>, sm::Partial<sm::ReduceOp::avg>>);
  Layout const whole({4}, {2, 2}, sm::placements<sm::Replicate, sm::Replicate>);
  sm::Plan const plan = sm::make_plan(mixed, whole);
  REQUIRE(plan.steps() == 2);
  CHECK(plan.rank_step(0, 0).op == sm::ReduceOp::avg);
  CHECK(plan.rank_step(1, 0).op == sm::ReduceOp::sum);
}

TEST_CASE("plan: bad input is refused with a sentence") {
  Layout const shard({4}, {2}, sm::placements<sm::Shard<0>>);
  CHECK_THROWS_WITH_AS(
      static_cast<void>(sm::make_plan(shard, Layout({5}, {2}, sm::placements<sm::Shard<0>>))),
      doctest::Contains("they must be equal"), sm::ShapeError);
  CHECK_THROWS_WITH_AS(
      static_cast<void>(sm::make_plan(shard, Layout({4}, {2}, sm::placements<sm::Partial<>>))),
      doctest::Contains("a Partial target placement is legal only where the source has the same "
                        "one; reduce to Shard or Replicate instead"),
      sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(
      static_cast<void>(sm::make_plan(Layout({4}, {4}, sm::placements<sm::Shard<0>>),
                                      Layout({4}, {2}, sm::placements<sm::Partial<>>))),
      doctest::Contains("cannot become partial on another mesh"), sm::InvalidArgument);
  Layout const sum({4}, {2}, sm::placements<sm::Partial<>>);
  CHECK_THROWS_WITH_AS(
      static_cast<void>(sm::make_plan(sum, sm::Holding(sum, {1, 0}))),
      doctest::Contains("on mesh (2) as (Partial(sum)) to (4) on mesh (2) as (Partial(sum)) of "
                        "ranks 1 0"),
      sm::InvalidArgument);
}

TEST_SUITE_END();

}  // namespace plan_test
