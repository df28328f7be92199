// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>

#include <shardmesh/core/config.hpp>

namespace shardmesh {
inline namespace v0 {

/// Layout of a small binary floating-point format.
/// `finite_only`: no infinities, NaN is the all-ones magnitude (the "fn" formats).
/// `unsigned_zero`: no infinities, no minus zero, NaN is the sign bit alone (the "fnuz" formats).
struct FloatFormat {
  int exponent_bits;
  int mantissa_bits;
  int bias;
  bool finite_only = false;
  bool unsigned_zero = false;
};

namespace detail {

/// `bits` of format F as a float; exact.
template <FloatFormat F>
[[nodiscard]] SHARDMESH_HD constexpr float decode_float(std::uint32_t bits) noexcept {
  constexpr int e_bits = F.exponent_bits;
  constexpr int m_bits = F.mantissa_bits;
  constexpr std::uint32_t m_mask = (1U << m_bits) - 1U;
  constexpr std::uint32_t e_mask = (1U << e_bits) - 1U;
  std::uint32_t const sign = (bits >> (e_bits + m_bits)) << 31;
  std::uint32_t const exponent = (bits >> m_bits) & e_mask;
  std::uint32_t mantissa = bits & m_mask;
  std::uint32_t const nan = sign | 0x7fc00000U;
  if constexpr (F.unsigned_zero) {
    if (bits == (1U << (e_bits + m_bits))) {
      return __builtin_bit_cast(float, 0x7fc00000U);
    }
  } else if constexpr (F.finite_only) {
    if (exponent == e_mask && mantissa == m_mask) {
      return __builtin_bit_cast(float, nan);
    }
  } else if (exponent == e_mask) {
    return __builtin_bit_cast(float, mantissa == 0
                                         ? (sign | 0x7f800000U)
                                         : (sign | 0x7f800000U | (mantissa << (23 - m_bits))));
  }
  int unbiased = static_cast<int>(exponent) - F.bias;
  if (exponent == 0) {
    if (mantissa == 0) {
      return __builtin_bit_cast(float, sign);
    }
    unbiased = 1 - F.bias;
    while ((mantissa >> m_bits) == 0) {  // normalise a subnormal
      mantissa <<= 1;
      --unbiased;
    }
    mantissa &= m_mask;
  }
  if (unbiased < -126) {  // only bfloat16 reaches below float's normal range
    std::uint32_t const full = (mantissa | (1U << m_bits)) << (23 - m_bits);
    return __builtin_bit_cast(float, sign | (full >> (-126 - unbiased)));
  }
  return __builtin_bit_cast(float, sign | (static_cast<std::uint32_t>(unbiased + 127) << 23) |
                                       (mantissa << (23 - m_bits)));
}

/// `value` in format F, rounded to nearest, ties to even. Overflow gives infinity, or NaN where the
/// format has none, as PyTorch does.
template <FloatFormat F>
[[nodiscard]] SHARDMESH_HD constexpr std::uint32_t encode_float(float value) noexcept {
  constexpr int e_bits = F.exponent_bits;
  constexpr int m_bits = F.mantissa_bits;
  constexpr std::uint32_t e_mask = (1U << e_bits) - 1U;
  constexpr std::uint32_t m_mask = (1U << m_bits) - 1U;
  constexpr bool ieee = !F.finite_only && !F.unsigned_zero;
  std::uint32_t const word = __builtin_bit_cast(std::uint32_t, value);
  std::uint32_t const sign = (word >> 31) << (e_bits + m_bits);
  std::uint32_t const magnitude = word & 0x7fffffffU;
  std::uint32_t const nan =
      F.unsigned_zero ? (1U << (e_bits + m_bits))
                      : (sign | (e_mask << m_bits) | (ieee ? (1U << (m_bits - 1)) : m_mask));
  std::uint32_t const overflow = ieee ? (sign | (e_mask << m_bits)) : nan;
  if (magnitude > 0x7f800000U) {
    return nan;
  }
  if (magnitude == 0x7f800000U) {
    return overflow;
  }
  if (magnitude == 0) {
    return F.unsigned_zero ? 0U : sign;
  }
  int exponent = static_cast<int>(magnitude >> 23) - 127;
  std::uint32_t full = magnitude & 0x7fffffU;
  if (exponent == -127) {
    exponent = -126;
  } else {
    full |= 0x800000U;
  }
  int shift = 23 - m_bits;
  int biased = exponent + F.bias;
  if (biased <= 0) {
    shift += 1 - biased;
    biased = 0;
  }
  if (shift > 25) {
    return F.unsigned_zero ? 0U : sign;
  }
  std::uint32_t const half = 1U << (shift - 1);
  std::uint32_t const rest = full & ((1U << shift) - 1U);
  std::uint32_t kept = full >> shift;
  if (rest > half || (rest == half && (kept & 1U) != 0)) {
    ++kept;
  }
  // `kept` carries the implicit bit when the result is normal, so adding lets a carry ripple.
  std::uint32_t const packed =
      biased == 0 ? kept : (static_cast<std::uint32_t>(biased - 1) << m_bits) + kept;
  std::uint32_t const largest = ieee              ? (e_mask << m_bits) - 1U
                                : F.unsigned_zero ? ((e_mask << m_bits) | m_mask)
                                                  : ((e_mask << m_bits) | m_mask) - 1U;
  if (packed > largest) {
    return overflow;
  }
  if (F.unsigned_zero && packed == 0) {
    return 0U;
  }
  return sign | packed;
}

}  // namespace detail

/// A floating-point number stored in `Storage` bits of format F. Converts from and to float;
/// compares bit by bit (`==` of the stored bits, so that tests can ask for bit equality).
template <class Storage, FloatFormat F>
struct SmallFloat {
  Storage bits = 0;

  constexpr SmallFloat() = default;
  SHARDMESH_HD constexpr explicit SmallFloat(float value) noexcept
      : bits(static_cast<Storage>(detail::encode_float<F>(value))) {}
  [[nodiscard]] SHARDMESH_HD constexpr explicit operator float() const noexcept {
    return detail::decode_float<F>(bits);
  }
  [[nodiscard]] friend constexpr bool operator==(SmallFloat, SmallFloat) = default;
};

/// IEEE half precision.
using Float16 = SmallFloat<std::uint16_t, FloatFormat{5, 10, 15}>;
/// The upper half of a float.
using BFloat16 = SmallFloat<std::uint16_t, FloatFormat{8, 7, 127}>;
/// Four bits of exponent, three of mantissa; finite.
using Float8E4M3fn = SmallFloat<std::uint8_t, FloatFormat{4, 3, 7, true, false}>;
/// Five bits of exponent, two of mantissa.
using Float8E5M2 = SmallFloat<std::uint8_t, FloatFormat{5, 2, 15}>;
/// As `Float8E4M3fn` with another bias, and without a negative zero.
using Float8E4M3fnuz = SmallFloat<std::uint8_t, FloatFormat{4, 3, 8, false, true}>;
/// As `Float8E5M2` with another bias; finite, without a negative zero.
using Float8E5M2fnuz = SmallFloat<std::uint8_t, FloatFormat{5, 2, 16, false, true}>;

/// A power of two, 2^(bits - 127); 255 is NaN. Used as a block scale; no sign, no zero.
struct Float8E8M0fnu {
  std::uint8_t bits = 0;
  /// Exact.
  [[nodiscard]] SHARDMESH_HD constexpr explicit operator float() const noexcept {
    std::uint32_t const word = bits == 255 ? 0x7fc00000U
                               : bits == 0 ? 0x00400000U  // subnormal
                                           : std::uint32_t{bits} << 23;
    return __builtin_bit_cast(float, word);
  }
  [[nodiscard]] friend constexpr bool operator==(Float8E8M0fnu, Float8E8M0fnu) = default;
};

/// Two floating-point numbers of four bits (E2M1) in a byte, PyTorch's float4_e2m1fn_x2. Nothing here
/// looks inside: such elements are stored and moved.
struct Float4E2M1fnX2 {
  std::uint8_t bits = 0;
  [[nodiscard]] friend constexpr bool operator==(Float4E2M1fnX2, Float4E2M1fnX2) = default;
};

/// Four floating-point numbers of six bits in three bytes; stored and moved, too.
struct Float6E2M3fnX4 {
  std::uint8_t bits[3] = {0, 0, 0};
  [[nodiscard]] friend constexpr bool operator==(Float6E2M3fnX4 const&,
                                                 Float6E2M3fnX4 const&) = default;
};
/// The same with three bits of exponent and two of mantissa.
struct Float6E3M2fnX4 {
  std::uint8_t bits[3] = {0, 0, 0};
  [[nodiscard]] friend constexpr bool operator==(Float6E3M2fnX4 const&,
                                                 Float6E3M2fnX4 const&) = default;
};

}  // namespace v0
}  // namespace shardmesh
