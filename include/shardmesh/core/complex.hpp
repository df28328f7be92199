// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <type_traits>

#include <shardmesh/core/config.hpp>

namespace shardmesh {
inline namespace v0 {

/// A complex number as its two parts, laid out as `std::complex<Real>`. For host and device code, and
/// without what `<complex>` costs to compile.
template <std::floating_point Real>
struct Complex {
  using value_type = Real;

  Real re;
  Real im;

  [[nodiscard]] SHARDMESH_HD constexpr Real real() const noexcept { return re; }
  [[nodiscard]] SHARDMESH_HD constexpr Real imag() const noexcept { return im; }
  [[nodiscard]] friend constexpr bool operator==(Complex const&, Complex const&) = default;
};

/// A complex number of two `Real`s: `Complex`, `std::complex`, `cuda::std::complex`,
/// `thrust::complex`, and what else has their form. The real part must be stored first, the imaginary
/// one behind it.
template <class T, class Real>
concept ComplexOf =
    std::same_as<std::remove_cv_t<T>, T> && std::same_as<typename T::value_type, Real> &&
    sizeof(T) == 2 * sizeof(Real) && requires(T const& number) {
      { number.real() } -> std::convertible_to<Real>;
      { number.imag() } -> std::convertible_to<Real>;
    };

namespace detail {

template <class T>
inline constexpr bool is_complex = false;
template <class Real>
inline constexpr bool is_complex<Complex<Real>> = true;

}  // namespace detail

}  // namespace v0
}  // namespace shardmesh
