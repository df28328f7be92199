// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/memory/convert.hpp>

namespace shardmesh {
inline namespace v0 {

/// Are the elements plain numbers, integers or floating-point?
[[nodiscard]] inline bool has_numbers(DType dtype) {
  auto const kind = detail::kind_of(dtype);
  return kind == detail::NumberKind::integer || kind == detail::NumberKind::real;
}

/// An element of a tensor as a plain number, exactly: bool, int or float. Nothing if it is no such
/// number: complex, a scale without sign, an integer that needs more than 63 bits.
/// @tparam Byte  any; a template, as below, so that conversions are compiled only where they are wanted.
template <class Byte>
[[nodiscard]] std::optional<Value> number_of(DType dtype, Byte const* element) {
  try {
    switch (detail::kind_of(dtype)) {
      case detail::NumberKind::integer: {
        std::int64_t integer = 0;
        convert_elements(dtype, element, DType::int64, &integer, 1);
        return dtype == DType::boolean ? Value(integer != 0) : Value(integer);
      }
      case detail::NumberKind::real: {
        double real = 0;
        convert_elements(dtype, element, DType::float64, &real, 1);
        return Value(real);
      }
      case detail::NumberKind::complex:
      case detail::NumberKind::other:
        break;
    }
  } catch (InvalidArgument const&) {  // an unsigned integer that is too large
  }
  return std::nullopt;
}

/// A plain number as an element of a tensor.
struct NumberElement {
  std::vector<std::byte> bytes;
  bool exact = false;  ///< false: rounded to the nearest floating-point number of the type
};

/// Nothing if `value` is no number, or none that the type can come near to: a fraction or a number out
/// of range as an integer; anything as a complex number, a packed one or a scale.
template <class Plain = Value>
[[nodiscard]] std::optional<NumberElement> element_of_number(Plain const& value, DType dtype) {
  auto const kind = detail::kind_of(dtype);
  bool const is_integer = kind == detail::NumberKind::integer;
  if (!is_integer && kind != detail::NumberKind::real) {
    return std::nullopt;
  }
  std::optional<std::int64_t> integer;
  double real = 0;
  if (bool const* const flag = value.template get<bool>()) {
    integer = *flag ? 1 : 0;
  } else if (auto const* const held = value.template get<std::int64_t>()) {
    integer = *held;
  } else if (auto const* const held_real = value.template get<double>()) {
    real = *held_real;
    bool const is_whole = real >= -0x1p63 && real < 0x1p63 &&
                          static_cast<double>(static_cast<std::int64_t>(real)) == real;
    if (is_whole && is_integer) {
      integer = static_cast<std::int64_t>(real);
    }
  } else {
    return std::nullopt;
  }
  NumberElement element{std::vector<std::byte>(size_of(dtype)), true};
  if (is_integer) {
    if (!integer) {
      return std::nullopt;
    }
    try {
      convert_elements(DType::int64, &*integer, dtype, element.bytes.data(), 1);
    } catch (InvalidArgument const&) {
      return std::nullopt;
    }
    return element;
  }
  if (integer) {
    real = static_cast<double>(*integer);
    element.exact = real < 0x1p63 && static_cast<std::int64_t>(real) == *integer;
  }
  convert_elements(DType::float64, &real, dtype, element.bytes.data(), 1);
  double back = 0;
  convert_elements(dtype, element.bytes.data(), DType::float64, &back, 1);
  bool const same = back == real || (back != back && real != real);
  element.exact = element.exact && same;
  return element;
}

}  // namespace v0
}  // namespace shardmesh
