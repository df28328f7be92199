// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/layout/same_parts.hpp>

#include <cstddef>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/layout/placements.hpp>

#include "../support/layouts.hpp"

namespace same_parts_test {

namespace sm = shardmesh;

using sm::Layout;
using sm::Placement;
using sm::PlacementList;
using sm::Shape;

static_assert(sm::same_parts({{8}, {1, 2}, sm::placements<sm::Replicate, sm::Shard<0>>},
                             {{8}, {1, 2}, sm::placements<sm::Shard<0>, sm::Shard<0>>}));
static_assert(sm::same_parts({{8}, {1, 2}, sm::placements<sm::Partial<>, sm::Shard<0>>},
                             {{8}, {1, 2}, sm::placements<sm::Replicate, sm::Shard<0>>}));
static_assert(!sm::same_parts({{8}, {2, 1}, sm::placements<sm::Partial<>, sm::Shard<0>>},
                              {{8}, {2, 1}, sm::placements<sm::Replicate, sm::Shard<0>>}));
static_assert(!sm::same_parts({{8}, {1, 2}, sm::placements<sm::Replicate, sm::Shard<0>>},
                              {{8}, {2, 1}, sm::placements<sm::Replicate, sm::Shard<0>>}));

TEST_SUITE_BEGIN("layout.same_parts");

TEST_CASE("same_parts: true just where every rank holds the same elements in the same order") {
  std::vector<Placement> const choices{sm::Replicate{}, sm::Shard{0},
                                       sm::Shard{1},    Placement::strided(0, 2),
                                       sm::Partial<>{}, Placement::partial(sm::ReduceOp::max)};
  int same = 0;
  int pairs = 0;
  for (Shape const& mesh : {Shape{1}, Shape{2}, Shape{1, 2}, Shape{2, 1}, Shape{2, 2}, Shape{1, 1},
                            Shape{1, 3, 1}, Shape{2, 1, 2}}) {
    std::vector<Layout> layouts;
    std::size_t combinations = 1;
    for (std::size_t m = 0; m < mesh.size(); ++m) {
      combinations *= choices.size();
    }
    for (std::size_t i = 0; i < combinations; ++i) {
      PlacementList list;
      bool sum = false;
      bool max = false;
      for (std::size_t m = 0, rest = i; m < mesh.size(); ++m, rest /= choices.size()) {
        list.push_back(choices[rest % choices.size()]);
        sum = sum || list.back() == choices[4];
        max = max || list.back() == choices[5];
      }
      if (!(sum && max)) {
        layouts.emplace_back(Shape{24, 24}, mesh, list);  // no two cuts of 24 meet by chance
      }
    }
    for (Layout const& a : layouts) {
      for (Layout const& b : layouts) {
        ++pairs;
        bool equal = true;
        for (std::size_t m = 0; m < mesh.size(); ++m) {
          bool const terms = a.placements()[m].is_partial() || b.placements()[m].is_partial();
          equal = equal && (mesh[m] == 1 || !terms || a.placements()[m] == b.placements()[m]);
        }
        for (sm::index_t rank = 0; equal && rank < a.ranks(); ++rank) {
          auto const at = sm::unravel(rank, mesh);
          equal = test::elements_by_pieces(a, at) == test::elements_by_pieces(b, at);
        }
        if (sm::same_parts(a, b) != equal) {
          FAIL_CHECK(to_string(a) << " and " << to_string(b) << ": " << equal);
        }
        same += equal ? 1 : 0;
      }
    }
  }
  CHECK(pairs > 50'000);
  CHECK(same > 1000);
}

TEST_SUITE_END();

}  // namespace same_parts_test
