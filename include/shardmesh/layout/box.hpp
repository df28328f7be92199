// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

/// A block of a global tensor: [offset, offset + extent) in every dimension.
struct Box {
  Shape offset;
  Shape extent;

  /// The box of a whole tensor.
  [[nodiscard]] static constexpr Box whole(Shape const& shape) {
    return {Shape(shape.size(), 0), shape};
  }
  [[nodiscard]] constexpr index_t volume() const { return v0::volume(extent); }
  [[nodiscard]] constexpr bool empty() const { return detail::contains(extent, 0); }
  [[nodiscard]] friend constexpr bool operator==(Box const&, Box const&) = default;
};

/// The elements that both boxes hold; nothing if there are none. Two 0-d boxes meet in one element.
/// @pre both boxes have the same rank.
[[nodiscard]] constexpr std::optional<Box> intersect(Box const& a, Box const& b) {
  Box result{a.offset, a.extent};
  for (std::size_t d = 0; d < a.extent.size(); ++d) {
    index_t const lo = detail::larger(a.offset[d], b.offset[d]);
    index_t const hi = detail::smaller(a.offset[d] + a.extent[d], b.offset[d] + b.extent[d]);
    if (lo >= hi) {
      return std::nullopt;
    }
    result.offset[d] = lo;
    result.extent[d] = hi - lo;
  }
  return result;
}

/// Does `outer` hold every element of `inner`?
[[nodiscard]] constexpr bool contains(Box const& outer, Box const& inner) {
  if (inner.empty()) {
    return true;
  }
  auto const common = intersect(outer, inner);
  return common.has_value() && *common == inner;
}

/// a - b, dimension by dimension.
[[nodiscard]] constexpr Shape difference(Shape const& a, Shape const& b) {
  Shape result = a;
  for (std::size_t d = 0; d < a.size(); ++d) {
    result[d] -= b[d];
  }
  return result;
}

/// a + b, dimension by dimension.
[[nodiscard]] constexpr Shape sum(Shape const& a, Shape const& b) {
  Shape result = a;
  for (std::size_t d = 0; d < a.size(); ++d) {
    result[d] += b[d];
  }
  return result;
}

/// "[0:4, 2:5]".
[[nodiscard]] inline std::string to_string(Box const& box) {
  std::string text = "[";
  for (std::size_t d = 0; d < box.extent.size(); ++d) {
    text += detail::concat(d == 0 ? "" : ", ", std::to_string(box.offset[d]), ':',
                           std::to_string(box.offset[d] + box.extent[d]));
  }
  return text + "]";
}

}  // namespace v0
}  // namespace shardmesh
