// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <fstream>
#include <string>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <shardmesh/layout/layout.hpp>
#include <shardmesh/layout/placements.hpp>

#include "../support/layouts.hpp"

namespace layout_test {

namespace sm = shardmesh;

using sm::Layout;
using sm::Placement;
using sm::PlacementList;
using sm::Shape;

// Golden tables, decided by the compiler. Rows held by each rank along one mesh dimension.
constexpr bool rows_are(sm::index_t n, sm::index_t k, std::initializer_list<sm::index_t> rows) {
  Layout const layout({n}, {k}, sm::placements<sm::Shard<0>>);
  sm::index_t rank = 0;
  for (sm::index_t expected : rows) {
    if (layout.local_shape({rank++})[0] != expected) {
      return false;
    }
  }
  return rank == k;
}
static_assert(rows_are(2, 4, {1, 1, 0, 0}));
static_assert(rows_are(3, 4, {1, 1, 1, 0}));
static_assert(rows_are(5, 4, {2, 2, 1, 0}));
static_assert(rows_are(6, 4, {2, 2, 2, 0}));
static_assert(rows_are(10, 4, {3, 3, 3, 1}));
static_assert(rows_are(9, 8, {2, 2, 2, 2, 1, 0, 0, 0}));
static_assert(rows_are(13, 8, {2, 2, 2, 2, 2, 2, 1, 0}));
static_assert(rows_are(0, 3, {0, 0, 0}));

// Cuts are nested, mesh dimension 0 first: 7 rows on 2 x 2 are 2, 2, 2, 1.
constexpr Layout nested({7, 5}, {2, 2}, sm::placements<sm::Shard<0>, sm::Shard<0>>);
static_assert(nested.local_shape({0, 0}) == Shape{2, 5});
static_assert(nested.local_shape({1, 1}) == Shape{1, 5});
static_assert(nested.local_offset({1, 1}) == Shape{6, 0});

// An empty shard reports the global extent, so that it never claims the place of a real one.
static_assert(Layout({5}, {2, 4}, sm::placements<sm::Shard<0>, sm::Shard<0>>)
                  .local_offset({0, 3}) == Shape{5});

// FSDP2 + TP, 16 rows, dp = 2, tp = 2: (0,0) [0,4)  (0,1) [8,12)  (1,0) [4,8)  (1,1) [12,16).
constexpr Layout fsdp_tp(sm::index_t rows, sm::index_t dp, sm::index_t tp) {
  PlacementList const list{Placement::strided(0, tp), sm::Shard{0}};
  return Layout::with_order({rows}, {dp, tp}, sm::physical_order(list, {dp, tp}));
}
static_assert(fsdp_tp(16, 2, 2).local_box({0, 1}) == sm::Box{{8}, {4}});
static_assert(fsdp_tp(16, 2, 2).local_box({1, 0}) == sm::Box{{4}, {4}});
static_assert(fsdp_tp(6, 2, 2).local_box({0, 1}) == sm::Box{{3}, {2}});
static_assert(fsdp_tp(5, 2, 2).local_box({1, 0}) == sm::Box{{2}, {1}});
// Where the left-to-right reading is not what FSDP2 stores: 9 rows, dp = 4, tp = 2.
static_assert(fsdp_tp(9, 4, 2).local_shape({3, 0}) == Shape{0});
static_assert(fsdp_tp(9, 4, 2).local_box({3, 1}) == sm::Box{{8}, {1}});
static_assert(Layout({9}, {4, 2}, PlacementList{Placement::strided(0, 2), sm::Shard{0}})
                  .local_shape({3, 0}) == Shape{1});

TEST_SUITE_BEGIN("layout.layout");

TEST_CASE("layout: reproduces 3,000 layouts computed by PyTorch") {
  std::ifstream file(SHARDMESH_TEST_DATA "/layouts.jsonl");
  REQUIRE(file.good());
  std::string line;
  int cases = 0;
  while (std::getline(file, line)) {
    auto const json = nlohmann::json::parse(line);
    Layout const layout(test::shape_of(json.at("shape")), test::shape_of(json.at("mesh")),
                        test::placements_of(json.at("placements")));
    bool equal = static_cast<sm::index_t>(json.at("ranks").size()) == layout.ranks();
    for (sm::index_t rank = 0; equal && rank < layout.ranks(); ++rank) {
      auto const& expected = json.at("ranks").at(static_cast<std::size_t>(rank));
      auto const coordinate = sm::unravel(rank, layout.mesh());
      equal = layout.local_shape(coordinate) == test::shape_of(expected.at(0)) &&
              layout.local_offset(coordinate) == test::shape_of(expected.at(1));
    }
    INFO(line);
    REQUIRE(equal);
    ++cases;
  }
  CHECK(cases == 3000);
}

TEST_CASE("layout: every element is where a naive cut puts it, for all small meshes and shapes") {
  long cases = 0;
  for (Shape const& mesh : test::small_meshes()) {
    for (Shape const& shape : test::small_shapes()) {
      for (PlacementList const& list : test::shard_placements(shape.size(), mesh.size())) {
        Layout const layout(shape, mesh, list);
        bool equal = true;
        for (sm::index_t rank = 0; rank < layout.ranks(); ++rank) {
          auto const coordinate = sm::unravel(rank, mesh);
          equal = equal && test::elements_by_pieces(layout, coordinate) ==
                               test::elements_by_naive_cuts(shape, mesh, list, coordinate);
        }
        INFO(sm::to_string(layout));
        REQUIRE(equal);
        ++cases;
      }
    }
  }
  MESSAGE(cases << " layouts");
  CHECK(cases > 5000);
}

TEST_CASE("layout: owners of a box are the ranks that hold one of its elements") {
  Layout const layout({7, 5}, {2, 2}, sm::placements<sm::Shard<0>, sm::Replicate>);
  CHECK(layout.owners({{0, 0}, {1, 1}}) == std::vector<sm::index_t>{0, 1});
  CHECK(layout.owners({{4, 0}, {1, 1}}) == std::vector<sm::index_t>{2, 3});
  CHECK(layout.owners({{3, 0}, {2, 1}}) == std::vector<sm::index_t>{0, 1, 2, 3});
}

TEST_CASE("layout: a 0-d tensor is one piece on every rank and cannot be sharded") {
  Layout const layout({}, {2}, sm::placements<sm::Replicate>);
  CHECK(layout.pieces({1}).size() == 1);
  CHECK(layout.local_shape({1}) == Shape{});
  CHECK_THROWS_WITH_AS(Layout({}, {2}, PlacementList{sm::Shard{0}}),
                       doctest::Contains("a 0-d tensor can only be replicated"),
                       sm::InvalidArgument);
}

TEST_CASE("layout: negative dimensions count from the last") {
  Layout const layout({4, 6}, {2}, PlacementList{sm::Shard{-1}});
  CHECK(layout.local_shape({0}) == Shape{4, 3});
  CHECK(layout == Layout({4, 6}, {2}, PlacementList{sm::Shard{1}}));
}

TEST_CASE("layout: bad input gives an error that says what, where and how to mend it") {
  CHECK_THROWS_WITH_AS(Layout({4}, {2, 2}, PlacementList{sm::Shard{0}}),
                       doctest::Contains("give one placement per mesh dimension"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Layout({4}, {2}, PlacementList{sm::Shard{1}}),
                       doctest::Contains("Shard(1) on mesh dimension 0 is out of range"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Layout({4}, {2}, PlacementList{Placement::strided(0, 0)}),
                       doctest::Contains("split factor must be at least 1"), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(
      Layout({4}, {2, 2}, PlacementList{sm::Partial<sm::ReduceOp::max>{}, sm::Partial<>{}}),
      doctest::Contains("must use one operation"), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Layout({4}, {0}, PlacementList{sm::Shard{0}}),
                       doctest::Contains("dimension without ranks"), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(Layout({-1}, {2}, PlacementList{sm::Shard{0}}),
                       doctest::Contains("negative extent"), sm::ShapeError);
  CHECK_THROWS_AS(
      Layout({sm::index_t{1} << 40, sm::index_t{1} << 40}, {2}, PlacementList{sm::Replicate{}}),
      sm::ShapeError);
  CHECK_THROWS_WITH_AS(static_cast<void>(Layout::with_order({4}, {2, 2}, {{0, 0, 1}, {0, 0, 1}})),
                       doctest::Contains("same mesh dimension twice"), sm::InvalidArgument);
  CHECK_THROWS_AS(Shape(9, 1), sm::ShapeError);
}

TEST_CASE("layout: sum and avg may be mixed") {
  CHECK(Layout({4}, {2, 2}, sm::placements<sm::Partial<>, sm::Partial<sm::ReduceOp::avg>>)
            .has_partial());
}

TEST_SUITE_END();

}  // namespace layout_test
