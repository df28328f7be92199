// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>

#include <shardmesh/core/index.hpp>
#include <shardmesh/core/inline_vector.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

/// Most dimensions that a tensor or a mesh may have.
inline constexpr std::size_t max_rank = 8;

/// Extents of a tensor or of a mesh, outermost dimension first; `{}` is a 0-d tensor.
using Shape = InlineVector<index_t, max_rank>;

/// A position in a mesh, one number per mesh dimension.
using Coordinate = InlineVector<index_t, max_rank>;

/// Product of the extents; 1 for a 0-d shape.
/// @throws ShapeError on overflow.
[[nodiscard]] constexpr index_t volume(Shape const& shape) {
  index_t product = 1;
  for (index_t extent : shape) {
    product = checked_mul(product, extent);
  }
  return product;
}

/// Row-major strides in elements: the last dimension has stride 1. An empty dimension counts as one
/// of extent 1.
/// @throws ShapeError on overflow.
[[nodiscard]] constexpr Shape row_major_strides(Shape const& shape) {
  Shape strides(shape.size(), 1);
  for (std::size_t d = shape.size(); d-- > 1;) {
    strides[d - 1] = checked_mul(strides[d], shape[d] > 0 ? shape[d] : 1);
  }
  return strides;
}

/// The coordinate of `linear` in row-major order.
/// @pre 0 <= linear < volume(shape).
[[nodiscard]] constexpr Coordinate unravel(index_t linear, Shape const& shape) {
  Coordinate coordinate(shape.size(), 0);
  for (std::size_t d = shape.size(); d-- > 0;) {
    coordinate[d] = linear % shape[d];
    linear /= shape[d];
  }
  return coordinate;
}

/// The row-major number of `coordinate`; the inverse of `unravel`.
/// @pre coordinate.size() == shape.size().
[[nodiscard]] constexpr index_t ravel(Coordinate const& coordinate, Shape const& shape) {
  index_t linear = 0;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    linear = linear * shape[d] + coordinate[d];
  }
  return linear;
}

/// "(7, 5)"; "()" for 0-d.
[[nodiscard]] inline std::string to_string(Shape const& shape) {
  std::string text = "(";
  for (std::size_t d = 0; d < shape.size(); ++d) {
    text += detail::concat(d == 0 ? "" : ", ", std::to_string(shape[d]));
  }
  return text + ")";
}

}  // namespace v0
}  // namespace shardmesh
