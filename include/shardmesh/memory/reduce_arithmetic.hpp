// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <complex>
#include <cstdint>
#include <type_traits>

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/reduce_op.hpp>

namespace shardmesh::inline v0::detail {

/// A complex number as two parts: std::complex cannot be used in device code.
template <class Real>
struct Parts {
  Real re;
  Real im;
};

/// The type in which terms of a T are added up. Small floats add in float and are rounded once, at
/// the end; signed integers add as unsigned ones, so that they wrap.
template <class T>
struct Accumulator {
  using type = float;  // the small floats
};
template <class T>
  requires std::is_integral_v<T>
struct Accumulator<T> {
  using type = std::make_unsigned_t<T>;
};
template <>
struct Accumulator<bool> {
  using type = bool;
};
template <>
struct Accumulator<float> {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <class Real>
struct Accumulator<std::complex<Real>> {
  using type = Parts<Real>;
};

template <class T>
struct IsParts : std::false_type {};
template <class Real>
struct IsParts<Parts<Real>> : std::true_type {};

/// One term more. `T` is the element type, `A` its accumulator. The same expressions run on host and
/// device; no product feeds a sum, except in complex products, so no fused operation can change a
/// result.
template <class T, class A>
[[nodiscard]] SHARDMESH_HD inline A combine(ReduceOp op, A a, A b) {
  if constexpr (std::is_same_v<T, bool>) {  // as NCCL through PyTorch: sum is "or", product "and"
    return op == ReduceOp::min || op == ReduceOp::product ? (a && b) : (a || b);
  } else if constexpr (IsParts<A>::value) {
    if (op == ReduceOp::product) {
      return A{a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
    }
    return A{a.re + b.re, a.im + b.im};
  } else {
    switch (op) {
      case ReduceOp::sum:
      case ReduceOp::avg:
        return static_cast<A>(a + b);
      case ReduceOp::product:
        if constexpr (std::is_integral_v<A> && sizeof(A) < sizeof(unsigned)) {
          return static_cast<A>(static_cast<unsigned>(a) * static_cast<unsigned>(b));
        } else {
          return static_cast<A>(a * b);
        }
      case ReduceOp::min:
      case ReduceOp::max:
        break;
    }
    if constexpr (std::is_integral_v<A>) {
      bool const less = static_cast<T>(b) < static_cast<T>(a);
      return (op == ReduceOp::min) == less ? b : a;
    } else {
      if (a != a || b != b) {  // a NaN stays
        return a != a ? a : b;
      }
      return (op == ReduceOp::min ? b < a : a < b) ? b : a;
    }
  }
}

/// Stores the value of `terms` combined terms: divides an average, rounds a small float.
template <class T, class A>
SHARDMESH_HD inline void store_term(T* element, ReduceOp op, A sum, int terms) {
  if constexpr (std::is_same_v<T, bool>) {
    *element = sum;
  } else if constexpr (IsParts<A>::value) {
    using Real = decltype(A::re);
    auto* parts = reinterpret_cast<Real*>(element);
    Real const by = op == ReduceOp::avg ? static_cast<Real>(terms) : Real{1};
    parts[0] = sum.re / by;
    parts[1] = sum.im / by;
  } else if constexpr (std::is_integral_v<T>) {
    auto const value = static_cast<T>(sum);
    *element = op == ReduceOp::avg ? static_cast<T>(value / static_cast<T>(terms)) : value;
  } else {
    A const value = op == ReduceOp::avg ? sum / static_cast<A>(terms) : sum;
    *element = T(value);
  }
}

/// One element as its accumulator.
template <class T>
[[nodiscard]] SHARDMESH_HD inline typename Accumulator<T>::type load_term(T const* element) {
  using A = typename Accumulator<T>::type;
  if constexpr (IsParts<A>::value) {
    auto const* parts = reinterpret_cast<decltype(A::re) const*>(element);
    return A{parts[0], parts[1]};
  } else {
    return static_cast<A>(*element);
  }
}

}  // namespace shardmesh::inline v0::detail
