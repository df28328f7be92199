// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <type_traits>

#include <shardmesh/core/complex.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/float_types.hpp>
#include <shardmesh/core/reduce_op.hpp>

// The arithmetic of reductions, one source text for host and device. An element is widened to its
// accumulator, accumulators are combined term by term, and the result is narrowed once. No product
// feeds a sum unrounded and every NaN result is the same NaN, so all engines give the same bits.
namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A bool as its byte: any byte but 0 is true.
struct TruthByte {
  std::uint8_t value;
};

/// The form in which the elements of a tensor of `T` are read and written by a reduction.
template <class T>
struct ReduceElement {
  using type = T;
};
template <>
struct ReduceElement<bool> {
  using type = TruthByte;
};

/// An element as its accumulator: small floats as float, signed integers as unsigned ones (so that
/// they wrap), a truth value as bool, anything else as it is.
template <class E>
[[nodiscard]] SHARDMESH_HD constexpr auto widen(E element) noexcept {
  if constexpr (std::is_same_v<E, TruthByte>) {
    return element.value != 0;
  } else if constexpr (std::is_integral_v<E>) {
    return static_cast<std::make_unsigned_t<E>>(element);
  } else if constexpr (std::is_floating_point_v<E> || is_complex<E>) {
    return element;
  } else if constexpr (std::is_same_v<E, BFloat16>) {  // the upper half of a float
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(element.bits) << 16);
  } else {
    return static_cast<float>(element);
  }
}

template <class E>
using Accumulator = decltype(widen(E{}));

/// a * b, rounded by itself: no compiler may fuse it with a sum. On the host the value passes
/// through memory, on a device an instruction says so.
template <class Real>
[[nodiscard]] SHARDMESH_HD inline Real rounded_product(Real a, Real b) noexcept {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Real) == sizeof(float)) {
    return __fmul_rn(a, b);
  } else {
    return __dmul_rn(a, b);
  }
#else
  Real volatile const product = a * b;
  return product;
#endif
}

/// One term more; `avg` combines as `sum`.
/// @tparam E the element type whose accumulators are combined.
template <class E>
[[nodiscard]] SHARDMESH_HD inline Accumulator<E> combine(ReduceOp op,
                                                         Accumulator<E> a,
                                                         Accumulator<E> b) noexcept {
  using A = Accumulator<E>;
  bool const ordered = op == ReduceOp::min || op == ReduceOp::max;
  if constexpr (std::is_same_v<A, bool>) {  // as NCCL through PyTorch: sum is "or", product "and"
    return op == ReduceOp::min || op == ReduceOp::product ? (a && b) : (a || b);
  } else if constexpr (is_complex<A>) {
    if (op == ReduceOp::product) {
      return A{rounded_product(a.re, b.re) - rounded_product(a.im, b.im),
               rounded_product(a.re, b.im) + rounded_product(a.im, b.re)};
    }
    return A{a.re + b.re, a.im + b.im};
  } else if constexpr (std::is_integral_v<A>) {
    if (ordered) {
      bool const less = static_cast<E>(b) < static_cast<E>(a);
      return (op == ReduceOp::min) == less ? b : a;
    }
    using Wide = std::common_type_t<A, unsigned>;  // a narrower product would promote to int
    return op == ReduceOp::product ? static_cast<A>(static_cast<Wide>(a) * static_cast<Wide>(b))
                                   : static_cast<A>(static_cast<Wide>(a) + static_cast<Wide>(b));
  } else {
    if (ordered) {  // `b != b`: a NaN wins, and stays, as it compares false with everything
      return (op == ReduceOp::min ? b < a : a < b) || b != b ? b : a;
    }
    return op == ReduceOp::product ? a * b : a + b;
  }
}

/// `value`, and the one quiet NaN without sign or payload in place of any NaN: processors differ in
/// the NaN that they make.
template <class Real>
[[nodiscard]] SHARDMESH_HD constexpr Real with_plain_nan(Real value) noexcept {
  using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits nan = sizeof(Real) == 4 ? Bits{0x7fc00000U} : static_cast<Bits>(0x7ff8ULL << 48);
  return value == value ? value : __builtin_bit_cast(Real, nan);
}

/// `value` rounded to nearest, ties to even, as the conversion of BFloat16, without a branch.
/// @pre value is no NaN with a payload.
[[nodiscard]] SHARDMESH_HD constexpr BFloat16 nearest_bfloat16(float value) noexcept {
  auto const word = __builtin_bit_cast(std::uint32_t, value);
  BFloat16 result;
  result.bits = static_cast<std::uint16_t>((word + 0x7fffU + ((word >> 16) & 1U)) >> 16);
  return result;
}

/// What is stored for combined terms: divided by `divisor` (integers truncate towards zero; 1 keeps
/// the value), then rounded to the element type.
template <class E>
[[nodiscard]] SHARDMESH_HD constexpr E narrow(Accumulator<E> total, int divisor) noexcept {
  using A = Accumulator<E>;
  if constexpr (std::is_same_v<A, bool>) {
    return E{static_cast<std::uint8_t>(total ? 1 : 0)};
  } else if constexpr (is_complex<A>) {
    using Real = decltype(A::re);
    auto const by = static_cast<Real>(divisor);
    return E{with_plain_nan(total.re / by), with_plain_nan(total.im / by)};
  } else if constexpr (std::is_integral_v<A>) {
    using Wide = std::conditional_t<std::is_signed_v<E>, std::int64_t, std::uint64_t>;
    auto const value = static_cast<E>(total);
    return divisor == 1 ? value
                        : static_cast<E>(static_cast<Wide>(value) / static_cast<Wide>(divisor));
  } else {
    A const value = with_plain_nan(divisor == 1 ? total : total / static_cast<A>(divisor));
    if constexpr (std::is_same_v<E, BFloat16>) {
      return nearest_bfloat16(value);
    } else {
      return static_cast<E>(value);
    }
  }
}

/// By how much the combined terms are divided.
[[nodiscard]] constexpr int divisor_of(ReduceOp op, int terms) noexcept {
  return op == ReduceOp::avg ? terms : 1;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
