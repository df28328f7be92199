// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <shardmesh/core/dtype.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// What is to be done to the stored elements of a tensor before they are its elements: PyTorch stores
/// `x.conj()`, and some views of its imaginary part, as the elements of `x` and a bit.
struct LazyView {
  bool conjugate = false;
  bool negative = false;

  [[nodiscard]] friend bool operator==(LazyView const&, LazyView const&) = default;
};

namespace detail {

enum class Sign : std::uint8_t { none, bit, complement };

/// How the elements of a type, or the parts of a complex one, are negated.
[[nodiscard]] constexpr Sign sign_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::float64:
    case DType::float32:
    case DType::float16:
    case DType::bfloat16:
    case DType::complex64:
    case DType::complex128:
      return Sign::bit;
    case DType::int8:
    case DType::uint8:
    case DType::int16:
    case DType::uint16:
    case DType::int32:
    case DType::uint32:
    case DType::int64:
    case DType::uint64:
      return Sign::complement;
    default:  // PyTorch negates no others
      return Sign::none;
  }
}

[[nodiscard]] constexpr bool is_complex_type(DType dtype) noexcept {
  return dtype == DType::complex64 || dtype == DType::complex128;
}

/// Negates numbers of `size` bytes, each `step`-th one.
inline void flip_signs(std::span<std::byte> numbers, std::size_t size, std::size_t step) {
  for (std::size_t at = size * step; at <= numbers.size(); at += size * step) {
    numbers[at - 1] ^= std::byte{0x80};
  }
}

/// Two's complements of integers of `size` bytes; the smallest one stays, as in PyTorch.
inline void negate_integers(std::span<std::byte> numbers, std::size_t size) {
  for (std::size_t at = 0; at + size <= numbers.size(); at += size) {
    std::uint64_t value = 0;
    std::memcpy(&value, numbers.data() + at, size);
    value = ~value + 1;
    std::memcpy(numbers.data() + at, &value, size);
  }
}

}  // namespace detail

/// Can stored elements of this type be such a view?
[[nodiscard]] constexpr bool is_resolvable(LazyView view, DType dtype) noexcept {
  return (!view.conjugate || detail::is_complex_type(dtype)) &&
         (!view.negative || detail::sign_of(dtype) != detail::Sign::none);
}

/// Makes the elements of the view of the stored ones.
/// @param storage  whole elements, little-endian, each of them once.
/// @pre is_resolvable(view, dtype).
inline void resolve(LazyView view, DType dtype, std::span<std::byte> storage) {
  bool const complex = detail::is_complex_type(dtype);
  std::size_t const part = size_of(dtype) / (complex ? 2 : 1);
  if (view.conjugate) {
    detail::flip_signs(storage, part, 2);
  }
  if (view.negative && detail::sign_of(dtype) == detail::Sign::bit) {
    detail::flip_signs(storage, part, 1);
  } else if (view.negative) {
    detail::negate_integers(storage, part);
  }
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
