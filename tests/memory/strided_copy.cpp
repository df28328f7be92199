// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/strided_copy.hpp>

#include <cstring>

#include <doctest/doctest.h>

#include "boxes.hpp"

namespace strided_copy_test {

namespace sm = shardmesh;

using sm::collapse;
using sm::CollapsedCopy;
using sm::Shape;
using sm::StridedCopy;

TEST_SUITE_BEGIN("memory.strided_copy");

namespace {

/// What a copy engine does with the calls that `engine_dims` allows it.
void engine_model(CollapsedCopy const& copy) {
  std::size_t const inner = sm::engine_dims(copy);
  sm::for_each_outer(copy, copy.extent.size() - inner, [&](std::byte const* from, std::byte* to) {
    sm::index_t const rows = inner > 0 ? copy.extent.back() : 1;
    sm::index_t const from_pitch = inner > 0 ? copy.source_strides.back() : 0;
    sm::index_t const to_pitch = inner > 0 ? copy.destination_strides.back() : 0;
    std::size_t const slice = copy.extent.size() - 2;
    sm::index_t const slices = inner > 1 ? copy.extent[slice] : 1;
    // A slice is given as a number of pitches.
    sm::index_t const from_rows = inner > 1 ? copy.source_strides[slice] / from_pitch : 0;
    sm::index_t const to_rows = inner > 1 ? copy.destination_strides[slice] / to_pitch : 0;
    for (sm::index_t z = 0; z < slices; ++z) {
      for (sm::index_t y = 0; y < rows; ++y) {
        std::memcpy(to + (z * to_rows + y) * to_pitch, from + (z * from_rows + y) * from_pitch,
                    copy.row_bytes);
      }
    }
  });
}

CollapsedCopy rows_of(std::size_t row_bytes,
                      Shape const& extent,
                      Shape const& source,
                      Shape const& destination) {
  return {nullptr, nullptr, row_bytes, extent, source, destination};
}

}  // namespace

TEST_CASE("a dense box is one row") {
  auto const one = collapse({nullptr, nullptr, {2, 3, 4}, {48, 16, 4}, {48, 16, 4}, 4});
  CHECK(one.row_bytes == 96);
  CHECK(one.extent.empty());
}

TEST_CASE("a 0-d box is one element") {
  auto const one = collapse({nullptr, nullptr, {}, {}, {}, 8});
  CHECK(one.row_bytes == 8);
  CHECK(one.extent.empty());
}

TEST_CASE("a box without elements is nothing") {
  CHECK(collapse({nullptr, nullptr, {3, 0}, {4, 4}, {4, 4}, 4}).row_bytes == 0);
}

TEST_CASE("columns of a matrix are rows with a pitch, whatever dimensions of one element say") {
  auto const part = collapse({nullptr, nullptr, {1, 5, 1, 3}, {7, 28, 99, 4}, {1, 12, 2, 4}, 4});
  CHECK(part.row_bytes == 12);
  CHECK(part.extent == Shape{5});
  CHECK(part.source_strides == Shape{28});
  CHECK(part.destination_strides == Shape{12});
}

TEST_CASE("dimensions merge only where they lie behind one another on both sides") {
  auto const part = collapse({nullptr, nullptr, {2, 3, 4}, {24, 8, 2}, {30, 10, 2}, 2});
  CHECK(part.row_bytes == 8);
  CHECK(part.extent == Shape{6});
  auto const gap = collapse({nullptr, nullptr, {2, 3, 4}, {24, 8, 2}, {32, 10, 2}, 2});
  CHECK(gap.extent == Shape{2, 3});
}

TEST_CASE("a number of elements beyond 63 bits is refused") {
  sm::index_t const big = sm::index_t{1} << 40;
  CHECK_THROWS_AS(static_cast<void>(collapse({nullptr, nullptr, {big, big}, {1, 1}, {1, 1}, 1})),
                  sm::ShapeError);
}

TEST_CASE("collapsed boxes are minimal and copy the same bytes as element by element") {
  boxes::Generator random(1);
  for (int round = 0; round < 3000; ++round) {
    boxes::Case const box = random.box();
    CAPTURE(box.extent);
    auto const source = random.bytes(box.source.bytes);
    auto expected = random.bytes(box.destination.bytes);
    auto result = expected;
    boxes::naive_copy(box.copy(source.data(), expected.data()));
    CollapsedCopy const rows = collapse(box.copy(source.data(), result.data()));
    if (rows.row_bytes > 0) {
      REQUIRE(rows.row_bytes * static_cast<std::size_t>(sm::volume(rows.extent)) ==
              box.element_bytes * static_cast<std::size_t>(sm::volume(box.extent)));
      engine_model(rows);
    }
    REQUIRE(result == expected);
    for (std::size_t d = 0; d < rows.extent.size(); ++d) {
      REQUIRE(rows.extent[d] > 1);
      bool const merges =
          d > 0 && rows.source_strides[d - 1] == rows.source_strides[d] * rows.extent[d] &&
          rows.destination_strides[d - 1] == rows.destination_strides[d] * rows.extent[d];
      REQUIRE_FALSE(merges);
    }
  }
}

TEST_CASE("rows are visited outermost dimension first") {
  std::byte memory[32];
  CollapsedCopy const rows{memory, memory, 1, {2, 3}, {10, 1}, {3, 1}};
  std::vector<std::ptrdiff_t> seen;
  sm::for_each_outer(rows, 2,
                     [&](std::byte const* from, std::byte*) { seen.push_back(from - memory); });
  CHECK(seen == std::vector<std::ptrdiff_t>{0, 1, 2, 10, 11, 12});
}

TEST_CASE("an engine copies in 3-D where slices are whole pitches apart, else in 2-D, else rows") {
  CHECK(sm::engine_dims(rows_of(8, {}, {}, {})) == 0);
  CHECK(sm::engine_dims(rows_of(8, {4}, {16}, {8})) == 1);
  CHECK(sm::engine_dims(rows_of(8, {3, 4}, {64, 16}, {32, 8})) == 2);
  CHECK(sm::engine_dims(rows_of(8, {2, 3, 4}, {999, 64, 16}, {999, 32, 8})) == 2);
  CHECK(sm::engine_dims(rows_of(8, {3, 4}, {72, 16}, {32, 8})) == 1);  // half a pitch
  CHECK(sm::engine_dims(rows_of(8, {3, 4}, {16, 64}, {32, 8})) == 1);  // slices interleave
  CHECK(sm::engine_dims(rows_of(8, {4}, {0}, {8})) == 0);              // a repeated row
  CHECK(sm::engine_dims(rows_of(8, {4}, {-16}, {8})) == 0);
  CHECK(sm::engine_dims(rows_of(8, {4}, {sm::index_t{1} << 31}, {8})) == 0);
}

TEST_SUITE_END();

}  // namespace strided_copy_test
