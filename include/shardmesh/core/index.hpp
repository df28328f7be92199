// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {

/// Sizes, offsets and element counts. Signed, so that differences are safe.
using index_t = std::int64_t;

/// Marks an extent, a dimension or a factor that is known only at run time.
inline constexpr int dynamic = std::numeric_limits<int>::min();

/// a / b rounded up.
/// @pre a >= 0 and b > 0.
[[nodiscard]] constexpr index_t ceil_div(index_t a, index_t b) noexcept {
  return a / b + (a % b != 0 ? 1 : 0);
}

/// a * b.
/// @throws ShapeError if the product does not fit 63 bits.
[[nodiscard]] constexpr index_t checked_mul(index_t a, index_t b) {
  index_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) {
    throw ShapeError("shardmesh: a product of extents does not fit 63 bits");
  }
  return result;
}

/// a + b.
/// @throws ShapeError if the sum does not fit 63 bits.
[[nodiscard]] constexpr index_t checked_add(index_t a, index_t b) {
  index_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) {
    throw ShapeError("shardmesh: a sum of extents does not fit 63 bits");
  }
  return result;
}

/// The one narrowing cast: `value` as a `To`.
/// @throws ShapeError if `To` cannot hold the value.
template <std::integral To, std::integral From>
[[nodiscard]] constexpr To checked_cast(From value) {
  if (!std::in_range<To>(value)) {
    throw ShapeError("shardmesh: an integer does not fit the type that an interface asks for");
  }
  return static_cast<To>(value);
}

}  // namespace v0
}  // namespace shardmesh
