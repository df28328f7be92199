// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <iterator>
#include <string_view>
#include <type_traits>

namespace shardmesh {
inline namespace v0 {

/// An aggregate that lists the names of its members instead of having a `visit()`:
///
/// @code
///   struct Linear {
///     Tensor<float> weight, bias;
///     static constexpr std::array member_names{"weight", "bias"};
///   };
/// @endcode
///
/// C++20 gives the members of an aggregate, by structured bindings, but not their names; names found
/// by position or by taking a compiler's text apart would tie checkpoints to the order of members or
/// to a compiler.
template <class T>
concept Reflected = std::is_aggregate_v<std::remove_cv_t<T>> &&
                    requires { std::size(std::remove_cv_t<T>::member_names); };

namespace detail {

/// `f(members...)` of an aggregate of 1 to 16 members.
template <std::size_t count, class T, class F>
constexpr decltype(auto) with_members(T& value, F&& f) {
  // clang-format off
  if constexpr (count == 1) { auto& [a] = value; return f(a); }
  else if constexpr (count == 2) { auto& [a, b] = value; return f(a, b); }
  else if constexpr (count == 3) { auto& [a, b, c] = value; return f(a, b, c); }
  else if constexpr (count == 4) { auto& [a, b, c, d] = value; return f(a, b, c, d); }
  else if constexpr (count == 5) { auto& [a, b, c, d, e] = value; return f(a, b, c, d, e); }
  else if constexpr (count == 6) { auto& [a, b, c, d, e, g] = value; return f(a, b, c, d, e, g); }
  else if constexpr (count == 7) { auto& [a, b, c, d, e, g, h] = value; return f(a, b, c, d, e, g, h); }
  else if constexpr (count == 8) { auto& [a, b, c, d, e, g, h, i] = value; return f(a, b, c, d, e, g, h, i); }
  else if constexpr (count == 9) { auto& [a, b, c, d, e, g, h, i, j] = value; return f(a, b, c, d, e, g, h, i, j); }
  else if constexpr (count == 10) { auto& [a, b, c, d, e, g, h, i, j, k] = value; return f(a, b, c, d, e, g, h, i, j, k); }
  else if constexpr (count == 11) { auto& [a, b, c, d, e, g, h, i, j, k, l] = value; return f(a, b, c, d, e, g, h, i, j, k, l); }
  else if constexpr (count == 12) { auto& [a, b, c, d, e, g, h, i, j, k, l, m] = value; return f(a, b, c, d, e, g, h, i, j, k, l, m); }
  else if constexpr (count == 13) { auto& [a, b, c, d, e, g, h, i, j, k, l, m, n] = value; return f(a, b, c, d, e, g, h, i, j, k, l, m, n); }
  else if constexpr (count == 14) { auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o] = value; return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o); }
  else if constexpr (count == 15) { auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p] = value; return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p); }
  else { auto& [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q] = value; return f(a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q); }
  // clang-format on
}

}  // namespace detail

/// Calls `f(name, member)` for each member of a `Reflected` value, in order: at most 16. A list of
/// names that is not as long as the list of members does not compile.
template <Reflected T, class F>
constexpr void for_each_member(T& value, F&& f) {
  constexpr std::size_t count = std::size(std::remove_cv_t<T>::member_names);
  static_assert(
      count >= 1 && count <= 16,
      "shardmesh::for_each_member: an aggregate of 1 to 16 members can be reflected; give "
      "the struct a visit() instead");
  auto const each = [&f](auto&... members) {
    auto name = std::begin(std::remove_cv_t<T>::member_names);
    (f(std::string_view(*name++), members), ...);
  };
  detail::with_members<count>(value, each);
}

}  // namespace v0
}  // namespace shardmesh
