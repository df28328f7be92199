// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <vector>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/index.hpp>

namespace shardmesh {
inline namespace v0 {

/// A half-open range of indices along one tensor dimension.
struct Interval {
  index_t lo = 0;
  index_t hi = 0;

  [[nodiscard]] constexpr index_t size() const noexcept { return hi - lo; }
  [[nodiscard]] friend constexpr bool operator==(Interval const&, Interval const&) = default;
};

/// The chunk rule (PyTorch's `torch.chunk`): the part of [0, length) that rank `index` of `count`
/// holds. All chunks but the last non-empty one have ceil(length / count) elements; later ones are
/// empty. This is not the balanced split: 5 over 4 gives 2, 2, 1, 0.
/// @pre length >= 0, 0 <= index < count.
[[nodiscard]] constexpr Interval chunk(index_t length, index_t count, index_t index) noexcept {
  index_t const size = ceil_div(length, count);
  return {detail::smaller(length, index * size), detail::smaller(length, (index + 1) * size)};
}

namespace detail {

/// Appends the part [from, to) of the sequence that `ranges` concatenated make.
constexpr void append_part(std::vector<Interval> const& ranges,
                           Interval part,
                           std::vector<Interval>& out) {
  index_t position = 0;
  for (Interval const& range : ranges) {
    index_t const lo = detail::larger(part.lo, position) - position;
    index_t const hi = detail::smaller(part.hi - position, range.size());
    if (lo < hi) {
      if (!out.empty() && out.back().hi == range.lo + lo) {
        out.back().hi = range.lo + hi;
      } else {
        out.push_back({range.lo + lo, range.lo + hi});
      }
    }
    position += range.size();
  }
}

/// One cut of a local sequence of `length` elements: into `split_factor` pieces by the chunk rule,
/// each into `count` sub-pieces; rank `index` keeps its sub-piece of every piece. A split factor
/// of 1 is the plain chunk rule.
[[nodiscard]] constexpr std::vector<Interval> cut(std::vector<Interval> const& ranges,
                                                  index_t length,
                                                  index_t split_factor,
                                                  index_t count,
                                                  index_t index) {
  std::vector<Interval> kept;
  for (index_t piece = 0; piece < split_factor; ++piece) {
    Interval const whole = chunk(length, split_factor, piece);
    Interval const part = chunk(whole.size(), count, index);
    append_part(ranges, {whole.lo + part.lo, whole.lo + part.hi}, kept);
  }
  return kept;
}

[[nodiscard]] constexpr index_t total(std::vector<Interval> const& ranges) {
  index_t sum = 0;
  for (Interval const& range : ranges) {
    sum += range.size();
  }
  return sum;
}

}  // namespace detail

}  // namespace v0
}  // namespace shardmesh
