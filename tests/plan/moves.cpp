// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/plan/moves.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/layout/placements.hpp>

#include "../support/simulate.hpp"

namespace moves_test {

namespace sm = shardmesh;

using sm::Holding;
using sm::index_t;
using sm::Layout;
using sm::Placement;
using sm::PlacementList;
using sm::RankStep;
using sm::Shape;
using sm::Transfer;

namespace {

/// Calls f(layout) for small shapes, meshes and placements.
template <class F>
void for_each_layout(F f) {
  for (Shape const& mesh : {Shape{1}, Shape{3}, Shape{2, 2}, Shape{2, 3}, Shape{2, 2, 2}}) {
    for (Shape const& shape :
         {Shape{}, Shape{0}, Shape{1}, Shape{5}, Shape{7, 5}, Shape{2, 3, 4}}) {
      for (auto const& list : test::shard_placements(shape.size(), mesh.size())) {
        f(Layout(shape, mesh, list));
      }
    }
  }
}

/// Elements that cross between ranks in one exchange.
index_t sent(Holding const& from, Holding const& to) {
  index_t elements = 0;
  for (int rank = 0; rank < from.rank_limit(); ++rank) {
    for (Transfer const& one : sm::moves(from, to, rank).sends) {
      elements += one.box.volume();
    }
  }
  return elements;
}

/// A layout of `shape` by random placements on a random mesh of at most `most` ranks, anywhere among them.
Holding random_holding(Shape const& shape, int most, bool may_be_partial, std::mt19937& random) {
  auto const below = [&random](index_t n) {
    return static_cast<index_t>(random() % static_cast<unsigned long>(n));
  };
  Shape mesh;
  index_t ranks = 1;
  auto const dims = static_cast<std::size_t>(1 + below(3));
  for (std::size_t m = 0; m < dims; ++m) {
    mesh.push_back(1 + below(std::min<index_t>(4, most / ranks)));
    ranks *= mesh[m];
  }
  PlacementList list;
  for (std::size_t m = 0; m < mesh.size(); ++m) {
    auto const dim =
        shape.empty() ? 0 : static_cast<int>(below(static_cast<index_t>(shape.size())));
    switch (shape.empty() ? below(2) : below(5)) {
      case 0:
        list.push_back(sm::Replicate{});
        break;
      case 1:
        list.push_back(may_be_partial ? Placement(sm::Partial<>{}) : Placement(sm::Replicate{}));
        break;
      case 2:
        list.push_back(Placement::strided(dim, 2));
        break;
      default:
        list.push_back(sm::Shard{dim});
    }
  }
  std::vector<int> all(static_cast<std::size_t>(most));
  std::iota(all.begin(), all.end(), 0);
  if (below(4) > 0) {
    std::shuffle(all.begin(), all.end(), random);
  }
  all.resize(static_cast<std::size_t>(ranks));
  return {Layout(shape, mesh, list), all};
}

}  // namespace

TEST_SUITE_BEGIN("plan.moves");

TEST_CASE("moves: a gather to a root brings every element once, and from its own line alone") {
  for_each_layout([](Layout const& layout) {
    for (int const root : {0, static_cast<int>(layout.ranks()) - 1}) {
      Holding const whole = Holding::whole(layout.shape(), root);
      bool const right =
          test::run_plan(sm::make_plan(layout, whole), test::locals_of(layout, layout)) ==
          test::locals_of(whole, layout);
      INFO(sm::to_string(layout), " to rank ", root);
      REQUIRE(right);
      auto const own = sm::volume(layout.local_shape(sm::unravel(root, layout.mesh())));
      REQUIRE(sent(layout, whole) == sm::volume(layout.shape()) - own);
    }
  });
}

TEST_CASE("moves: a scatter from a root sends every rank its part and no more") {
  for_each_layout([](Layout const& layout) {
    for (int const root : {0, static_cast<int>(layout.ranks()) - 1}) {
      Holding const whole = Holding::whole(layout.shape(), root);
      bool const right =
          test::run_plan(sm::make_plan(whole, layout), test::locals_of(whole, layout)) ==
          test::locals_of(Holding(layout), layout);
      INFO(sm::to_string(layout), " from rank ", root);
      REQUIRE(right);
      index_t wanted = 0;
      for (index_t rank = 0; rank < layout.ranks(); ++rank) {
        wanted +=
            rank == root ? 0 : sm::volume(layout.local_shape(sm::unravel(rank, layout.mesh())));
      }
      REQUIRE(sent(whole, layout) == wanted);
    }
  });
}

TEST_CASE("moves: between any two holdings on the ranks of a job, partial sources included") {
  std::mt19937 random(20261126);
  long apart = 0;
  for (int i = 0; i < 6000; ++i) {
    Shape shape;
    for (unsigned long d = random() % 4; d > 0; --d) {
      shape.push_back(static_cast<index_t>(random() % 9));
    }
    Holding const from = random_holding(shape, 12, true, random);
    Holding const to = random_holding(shape, 12, false, random);
    bool const right =
        test::run_plan(sm::make_plan(from, to), test::locals_of(from, from.layout())) ==
        test::locals_of(to, from.layout());
    INFO(sm::to_string(from), " -> ", sm::to_string(to));
    REQUIRE(right);
    bool meet = false;
    for (int rank = 0; rank < 12; ++rank) {
      meet = meet || (from.position_of(rank) && to.position_of(rank));
    }
    apart += meet ? 0 : 1;
  }
  CHECK(apart > 300);
}

TEST_CASE("moves: replicas share the receivers of another mesh") {
  Holding const from(Layout({8}, {4}, sm::placements<sm::Replicate>), {0, 1, 2, 3});
  Holding const to(Layout({8}, {4}, sm::placements<sm::Shard<0>>), {7, 6, 5, 4});
  std::set<int> served;
  for (int rank = 0; rank < 4; ++rank) {
    RankStep const step = sm::moves(from, to, rank);
    REQUIRE(step.sends.size() == 1);
    served.insert(step.sends[0].peer);
    CHECK(step.target_shape == Shape{0});
  }
  CHECK(served == std::set<int>{4, 5, 6, 7});
  RankStep const outside = sm::moves(from, to, 9);
  CHECK(outside.source_shape == Shape{0});
  CHECK(outside.target_shape == Shape{0});
  CHECK(outside.sends.empty());
  CHECK(outside.receives.empty());
}

TEST_CASE("moves: who holds a part already gets it from itself, whatever its position") {
  Holding const from(Layout({4}, {2}, sm::placements<sm::Replicate>), {5, 2});
  Holding const to(Layout({4}, {2}, sm::placements<sm::Shard<0>>), {2, 5});
  for (int const rank : {2, 5}) {
    RankStep const step = sm::moves(from, to, rank);
    CHECK(step.sends.empty());
    CHECK(step.receives.empty());
    CHECK(step.locals.size() == 1);
  }
}

TEST_CASE("moves: one rank of 16,384 has its own peers alone") {
  Shape const mesh{2048, 8};
  Shape const shape{1 << 20, 4096};
  Layout const rows(shape, mesh, sm::placements<sm::Replicate, sm::Shard<0>>);
  Layout const columns(shape, mesh, sm::placements<sm::Replicate, sm::Shard<1>>);
  RankStep const step = sm::moves(rows, columns, 8 * 1000 + 3);
  REQUIRE(step.sends.size() == 7);
  REQUIRE(step.receives.size() == 7);
  for (Transfer const& one : step.sends) {
    CHECK(one.peer / 8 == 1000);
    CHECK(one.box.volume() == (1 << 20) / 8 * 4096 / 8);
  }
}

TEST_CASE("holding: ranks that are none are refused") {
  Layout const layout({4}, {2}, sm::placements<sm::Shard<0>>);
  CHECK_THROWS_WITH_AS(Holding(layout, {1}), doctest::Contains("1 ranks for mesh (2)"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Holding(layout, {1, 1}), doctest::Contains("rank 1 stands twice"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Holding(layout, {0, -1}), doctest::Contains("rank -1 is negative"),
                       sm::InvalidArgument);
  CHECK(Holding(layout, {0, 1}) == Holding(layout));
  CHECK_FALSE(Holding(layout, {1, 0}) == Holding(layout));
  CHECK(fingerprint(Holding(layout, {1, 0})).value() != fingerprint(Holding(layout)).value());
  CHECK(to_string(Holding(layout, {4, 7})) == "(4) on mesh (2) as (Shard(0)) of ranks 4 7");
  CHECK(Holding(layout, {4, 7}).position_of(7) == 1);
  CHECK_FALSE(Holding(layout, {4, 7}).position_of(5).has_value());
}

TEST_SUITE_END();

}  // namespace moves_test
