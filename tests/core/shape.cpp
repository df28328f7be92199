// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/shape.hpp>

#include <doctest/doctest.h>

namespace shape_test {

namespace sm = shardmesh;

using sm::Shape;

static_assert(sm::volume({}) == 1);
static_assert(sm::volume({7, 5}) == 35);
static_assert(sm::volume({7, 0, 5}) == 0);
static_assert(sm::row_major_strides({2, 3, 4}) == Shape{12, 4, 1});
static_assert(sm::row_major_strides({2, 0, 4}) == Shape{4, 4, 1});
static_assert(sm::row_major_strides({}) == Shape{});

TEST_SUITE_BEGIN("core.shape");

TEST_CASE("ravel undoes unravel, and strides say the same") {
  for (Shape const& shape : {Shape{}, Shape{5}, Shape{2, 3, 4}, Shape{1, 7, 1, 2}}) {
    Shape const strides = sm::row_major_strides(shape);
    for (sm::index_t i = 0; i < sm::volume(shape); ++i) {
      sm::Coordinate const at = sm::unravel(i, shape);
      CHECK(sm::ravel(at, shape) == i);
      sm::index_t offset = 0;
      for (std::size_t d = 0; d < at.size(); ++d) {
        CHECK(at[d] >= 0);
        CHECK(at[d] < shape[d]);
        offset += at[d] * strides[d];
      }
      CHECK(offset == i);
    }
  }
}

TEST_CASE("a volume beyond 63 bits is refused") {
  sm::index_t const big = sm::index_t{1} << 32;
  CHECK_THROWS_AS(static_cast<void>(sm::volume({big, big})), sm::ShapeError);
}

TEST_CASE("strides beyond 63 bits are refused, also those of a tensor without elements") {
  sm::index_t const big = sm::index_t{1} << 40;
  CHECK(sm::row_major_strides({big, 0, 3}) == Shape{3, 3, 1});
  CHECK_THROWS_AS(static_cast<void>(sm::row_major_strides({7, big, big})), sm::ShapeError);
  CHECK_THROWS_AS(static_cast<void>(sm::row_major_strides({0, big, big})), sm::ShapeError);
}

TEST_CASE("a tensor has at most 8 dimensions") {
  CHECK(sm::volume({2, 2, 2, 2, 2, 2, 2, 2}) == 256);
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), sm::ShapeError);
}

TEST_CASE("shapes print as tuples") {
  CHECK(sm::to_string(Shape{}) == "()");
  CHECK(sm::to_string(Shape{7}) == "(7)");
  CHECK(sm::to_string(Shape{7, 5}) == "(7, 5)");
}

TEST_SUITE_END();

}  // namespace shape_test
