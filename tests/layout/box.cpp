// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/layout/box.hpp>

#include <vector>

#include <doctest/doctest.h>

namespace box_test {

namespace sm = shardmesh;

using sm::Box;
using sm::Shape;

static_assert(Box::whole({7, 5}) == Box{{0, 0}, {7, 5}});
static_assert(Box::whole({}).volume() == 1 && !Box::whole({}).empty());
static_assert(Box{{3, 1}, {2, 4}}.volume() == 8);
static_assert(Box{{3, 1}, {2, 0}}.empty() && Box{{3, 1}, {2, 0}}.volume() == 0);
static_assert(*sm::intersect({{0, 0}, {4, 4}}, {{2, 3}, {9, 9}}) == Box{{2, 3}, {2, 1}});
static_assert(!sm::intersect({{0}, {4}}, {{4}, {4}}));       // neighbours do not meet
static_assert(!sm::intersect({{0}, {4}}, {{2}, {0}}));       // nothing meets an empty box
static_assert(*sm::intersect({{}, {}}, {{}, {}}) == Box{});  // one element
static_assert(sm::difference({5, 3}, {2, 3}) == Shape{3, 0});
static_assert(sm::sum({5, 3}, {2, 3}) == Shape{7, 6});

TEST_SUITE_BEGIN("layout.box");

TEST_CASE("box: intersections are the common elements, for all boxes of a 4 x 3 tensor") {
  std::vector<Box> boxes;
  for (sm::index_t code = 0; code < 4 * 3 * 5 * 4; ++code) {
    Shape const at = sm::unravel(code, {4, 3, 5, 4});
    if (at[0] + at[2] <= 4 && at[1] + at[3] <= 3) {
      boxes.push_back({{at[0], at[1]}, {at[2], at[3]}});
    }
  }
  auto const holds = [](Box const& box, Shape const& at) {
    return at[0] >= box.offset[0] && at[0] < box.offset[0] + box.extent[0] &&
           at[1] >= box.offset[1] && at[1] < box.offset[1] + box.extent[1];
  };
  bool good = true;
  for (Box const& a : boxes) {
    for (Box const& b : boxes) {
      auto const common = sm::intersect(a, b);
      bool inside = true;
      sm::index_t count = 0;
      for (sm::index_t i = 0; i < 12; ++i) {
        Shape const at = sm::unravel(i, {4, 3});
        bool const both = holds(a, at) && holds(b, at);
        good = good && both == (common && holds(*common, at));
        inside = inside && (holds(a, at) || !holds(b, at));
        count += both ? 1 : 0;
      }
      good = good && count == (common ? common->volume() : 0) && inside == sm::contains(a, b);
    }
  }
  CHECK(boxes.size() > 100);
  CHECK(good);
}

TEST_CASE("box: as text") {
  CHECK(sm::to_string(Box{{0, 2}, {4, 3}}) == "[0:4, 2:5]");
  CHECK(sm::to_string(Box{{3}, {0}}) == "[3:3]");
  CHECK(sm::to_string(Box{}) == "[]");
}

TEST_SUITE_END();

}  // namespace box_test
