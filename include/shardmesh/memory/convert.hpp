// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/complex.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/memory/float_convert.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Float8E8M0fnu has neither sign nor zero, packed numbers are several: they become only themselves.
template <class T>
inline constexpr bool is_real = !std::integral<T> && !is_complex<T> && has_arithmetic(dtype_of<T>);

/// The number of which `T`'s values are all exact, in which conversions meet.
template <class T>
using Wide = std::conditional_t<
    std::integral<T>,
    std::int64_t,
    std::conditional_t<is_complex<T>, Complex<double>, std::conditional_t<is_real<T>, double, T>>>;

template <class T>
[[nodiscard]] Wide<T> to_wide(T value) {
  if constexpr (std::integral<T>) {
    if (std::cmp_greater(value + 0, INT64_MAX)) {
      throw InvalidArgument("the value " + std::to_string(value) + " does not fit");
    }
    return static_cast<std::int64_t>(value);
  } else if constexpr (is_complex<T>) {
    return {static_cast<double>(value.real()), static_cast<double>(value.imag())};
  } else if constexpr (is_real<T> && !std::same_as<T, double> && !std::same_as<T, float>) {
    return static_cast<float>(value);
  } else {
    return value;
  }
}

template <class T>
[[nodiscard]] T from_wide(Wide<T> value) {
  if constexpr (std::integral<T>) {
    if (value < std::int64_t{std::numeric_limits<T>::min()} ||
        std::cmp_greater(value, std::numeric_limits<T>::max() + 0)) {
      throw InvalidArgument("the value " + std::to_string(value) + " does not fit");
    }
    return static_cast<T>(value);
  } else if constexpr (is_complex<T>) {
    using Part = typename T::value_type;
    return {static_cast<Part>(value.real()), static_cast<Part>(value.imag())};
  } else if constexpr (std::same_as<T, double> || std::same_as<T, float>) {
    return static_cast<T>(value);
  } else if constexpr (is_real<T>) {
    return T(round_to_odd(value));
  } else {
    return value;
  }
}

enum class NumberKind : std::uint8_t { integer, real, complex, other };

[[nodiscard]] constexpr NumberKind kind_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::int8:
    case DType::uint8:
    case DType::int16:
    case DType::uint16:
    case DType::int32:
    case DType::uint32:
    case DType::int64:
    case DType::uint64:
    case DType::boolean:
      return NumberKind::integer;
    case DType::complex64:
    case DType::complex128:
      return NumberKind::complex;
    default:
      return has_arithmetic(dtype) ? NumberKind::real : NumberKind::other;
  }
}

/// So many elements are converted at a time.
inline constexpr std::size_t conversion_block = 512;

template <class T>
void read_block(std::byte const* source, Wide<T>* numbers, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if constexpr (std::same_as<T, bool>) {  // any byte may be stored
      numbers[i] = source[i] != std::byte{0} ? 1 : 0;
    } else {
      T value;
      std::memcpy(&value, source + i * sizeof(T), sizeof(T));
      numbers[i] = to_wide(value);
    }
  }
}

template <class T>
void write_block(Wide<T> const* numbers, std::byte* target, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    T const value = from_wide<T>(numbers[i]);
    std::memcpy(target + i * sizeof(T), &value, sizeof(T));
  }
}

/// @pre count <= conversion_block; the types `from` and `to` have the same `Wide`.
template <std::integral Count>
void convert_block(DType from, std::byte const* source, DType to, std::byte* target, Count count) {
  using Widest = Complex<double>;
  alignas(Widest) std::array<std::byte, conversion_block * sizeof(Widest)> wide;
  visit_dtype(from, [&]<class T>(std::type_identity<T>) {
    read_block<T>(source, reinterpret_cast<Wide<T>*>(wide.data()), count);
  });
  visit_dtype(to, [&]<class T>(std::type_identity<T>) {
    write_block<T>(reinterpret_cast<Wide<T> const*>(wide.data()), target, count);
  });
}

}  // namespace detail

/// Can elements of one type be converted into another? Floating-point numbers into each other,
/// complex ones into each other, integers (and booleans) into each other.
[[nodiscard]] inline bool is_convertible(DType from, DType to) {
  return from == to || (detail::kind_of(from) == detail::kind_of(to) &&
                        detail::kind_of(from) != detail::NumberKind::other);
}

/// Converts contiguous elements in host memory. Floating-point numbers are rounded once, to nearest,
/// ties to even; what is too large becomes infinity, or NaN in formats without. Integers must fit.
/// @pre is_convertible(from, to); the runs do not overlap.
/// @tparam Count any integer: a template, so that the loops for all types are compiled only where
///         they are called.
/// @throws InvalidArgument for an integer that does not fit; part of `target` is then written.
template <std::integral Count>
void convert_elements(DType from, void const* source, DType to, void* target, Count count) {
  auto const all = static_cast<std::size_t>(count);
  constexpr std::size_t block = detail::conversion_block;
  for (std::size_t done = 0; done < all; done += block) {
    detail::convert_block(from, static_cast<std::byte const*>(source) + done * size_of(from), to,
                          static_cast<std::byte*>(target) + done * size_of(to),
                          detail::smaller(block, all - done));
  }
}

}  // namespace v0
}  // namespace shardmesh
