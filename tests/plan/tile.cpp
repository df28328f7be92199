// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/plan/tile.hpp>

#include <cstddef>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "../support/layouts.hpp"

namespace tile_test {

namespace sm = shardmesh;

using sm::Box;
using sm::index_t;
using sm::Shape;

TEST_SUITE_BEGIN("plan.tile");

// At compile time: whole rows while one fits, then parts of rows.
static_assert(sm::tiles(Box{{2, 0}, {5, 4}}, 8) ==
              std::vector<Box>{{{2, 0}, {2, 4}}, {{4, 0}, {2, 4}}, {{6, 0}, {1, 4}}});
static_assert(sm::tiles(Box{{0, 1}, {2, 5}}, 3) ==
              std::vector<Box>{
                  {{0, 1}, {1, 3}}, {{0, 4}, {1, 2}}, {{1, 1}, {1, 3}}, {{1, 4}, {1, 2}}});
static_assert(sm::tiles(Box{{0, 0, 0}, {2, 2, 3}}, 100) ==
              std::vector<Box>{{{0, 0, 0}, {2, 2, 3}}});
static_assert(sm::tiles(Box{{}, {}}, 1) == std::vector<Box>{{{}, {}}});
static_assert(sm::tiles(Box{{3, 0}, {0, 4}}, 7).empty());

TEST_CASE("tiles: every element once, none larger than asked, in row-major order") {
  for (Shape const& shape : test::small_shapes()) {
    for (index_t most = 1; most <= sm::volume(shape) + 2; ++most) {
      std::vector<index_t> seen;
      for (Box const& tile : sm::tiles(Box::whole(shape), most)) {
        CHECK(tile.volume() <= most);
        CHECK(tile.volume() > 0);
        for (index_t i = 0; i < tile.volume(); ++i) {
          seen.push_back(sm::ravel(sm::sum(tile.offset, sm::unravel(i, tile.extent)), shape));
        }
      }
      std::vector<index_t> wanted(static_cast<std::size_t>(sm::volume(shape)));
      std::iota(wanted.begin(), wanted.end(), index_t{0});
      CHECK(seen == wanted);
    }
  }
}

TEST_CASE("tiles of a transfer move with it in both local tensors") {
  sm::Transfer one;
  one.peer = 3;
  one.box = {{4, 2}, {3, 2}};
  one.source = {{1, 0}, {9, 2}};
  one.target = {{0, 5}, {3, 8}};
  auto const parts = sm::tiles(one, 4);
  REQUIRE(parts.size() == 2);
  CHECK(parts[1].peer == 3);
  CHECK(parts[1].box == Box{{6, 2}, {1, 2}});
  CHECK(parts[1].source == sm::LocalPlace{{3, 0}, {9, 2}});
  CHECK(parts[1].target == sm::LocalPlace{{2, 5}, {3, 8}});
}

TEST_SUITE_END();

}  // namespace tile_test
