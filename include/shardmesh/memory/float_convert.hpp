// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/index.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// The element types that `convert` knows: float64, float32, float16, bfloat16, by whatever C++ type.
template <class T>
inline constexpr bool is_convertible_element =
    dtype_of<T> == DType::float64 || dtype_of<T> == DType::float32 ||
    dtype_of<T> == DType::float16 || dtype_of<T> == DType::bfloat16;

/// `value` as a float whose last bit remembers that something was cut off ("round to odd"): rounding
/// it once more to a format with at least two bits less gives what rounding `value` itself gives.
[[nodiscard]] SHARDMESH_HD constexpr float round_to_odd(double value) noexcept {
  auto const nearest = static_cast<float>(value);
  auto const back = static_cast<double>(nearest);
  if (back == value || value != value) {
    return nearest;
  }
  auto bits = __builtin_bit_cast(std::uint32_t, nearest);
  if ((back < 0 ? -back : back) > (value < 0 ? -value : value)) {
    --bits;  // towards zero
  }
  return __builtin_bit_cast(float, bits | 1U);
}

/// One element as another type, rounded once: to nearest, ties to even. The same on host and device.
template <class To, class From>
[[nodiscard]] SHARDMESH_HD constexpr To convert_element(From value) noexcept {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_floating_point_v<To> && std::is_floating_point_v<From>) {
    return static_cast<To>(value);
  } else if constexpr (std::is_same_v<From, double>) {
    return static_cast<To>(round_to_odd(value));
  } else {
    return static_cast<To>(static_cast<float>(value));
  }
}

/// What `f(identity<T>)` returns for one of the types above; false for any other.
template <class F>
bool visit_convertible(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float64:
      return f(std::type_identity<double>{});
    case DType::float32:
      return f(std::type_identity<float>{});
    case DType::float16:
      return f(std::type_identity<Float16>{});
    case DType::bfloat16:
      return f(std::type_identity<BFloat16>{});
    default:
      return false;
  }
}

/// Calls `f(identity<From>, identity<To>)` for two element types that can be converted.
/// @returns false if one of them cannot.
template <class F>
bool visit_conversion(DType from, DType to, F&& f) {
  return visit_convertible(from, [&](auto source) {
    return visit_convertible(to, [&](auto target) {
      f(source, target);
      return true;
    });
  });
}

[[noreturn]] inline void throw_inconvertible(DType from, DType to) {
  throw UnsupportedError("shardmesh::convert: no conversion from " + std::string(to_string(from)) +
                         " to " + std::string(to_string(to)) +
                         "; float64, float32, float16 and bfloat16 convert into each other");
}

}  // namespace detail

/// target[i] = source[i] as another element type, in host memory: rounded to nearest, ties to even.
/// @tparam Count any integer: a template, so that the loops for all types are compiled only where
///         they are called.
/// @throws UnsupportedError if one of the types is not float64, float32, float16 or bfloat16.
template <std::integral Count>
void host_convert(DType from, void const* source, DType to, void* target, Count count) {
  auto const all = static_cast<index_t>(count);
  bool const known = detail::visit_conversion(
      from, to, [&]<class From, class To>(std::type_identity<From>, std::type_identity<To>) {
        auto const* in = static_cast<From const*>(source);
        auto* out = static_cast<To*>(target);
        for (index_t i = 0; i < all; ++i) {
          out[i] = detail::convert_element<To>(in[i]);
        }
      });
  if (!known) {
    detail::throw_inconvertible(from, to);
  }
}

}  // namespace v0
}  // namespace shardmesh
