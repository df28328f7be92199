// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The few algorithms that headers of the umbrella need. <algorithm> brings those on ranges too, which
// every translation unit of a user would pay for; see docs/decisions/0006.
namespace shardmesh {
inline namespace v0 {
namespace detail {

template <class T>
[[nodiscard]] constexpr T smaller(T a, T b) noexcept {
  return b < a ? b : a;
}

template <class T>
[[nodiscard]] constexpr T larger(T a, T b) noexcept {
  return a < b ? b : a;
}

template <class Range, class T>
[[nodiscard]] constexpr bool contains(Range const& range, T const& value) {
  for (auto const& one : range) {
    if (one == value) {
      return true;
    }
  }
  return false;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
