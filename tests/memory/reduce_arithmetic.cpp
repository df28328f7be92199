// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/reduce_arithmetic.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>

#include <doctest/doctest.h>

namespace reduce_arithmetic_test {

namespace detail = shardmesh::detail;

using shardmesh::BFloat16;
using shardmesh::ReduceOp;

static_assert(std::is_same_v<detail::Accumulator<BFloat16>, float>);
static_assert(std::is_same_v<detail::Accumulator<shardmesh::Float8E5M2>, float>);
static_assert(std::is_same_v<detail::Accumulator<std::int8_t>, std::uint8_t>);
static_assert(std::is_same_v<detail::Accumulator<double>, double>);
static_assert(std::is_same_v<detail::Accumulator<detail::TruthByte>, bool>);
static_assert(sizeof(detail::ReduceElement<bool>::type) == 1);

TEST_SUITE_BEGIN("memory.reduce_arithmetic");

TEST_CASE("bfloat16 widens and rounds as its conversions do") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    BFloat16 element;
    element.bits = static_cast<std::uint16_t>(bits);
    float const value = static_cast<float>(element);
    float const widened = detail::widen(element);
    wrong += std::memcmp(&value, &widened, sizeof(float)) == 0 ? 0 : 1;
    for (std::uint32_t low : {0x0000U, 0x0001U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU}) {
      float const between = __builtin_bit_cast(float, (bits << 16) | low);
      if (!std::isnan(between)) {
        wrong += detail::nearest_bfloat16(between) == BFloat16(between) ? 0 : 1;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("every NaN becomes the plain quiet one, other values stay") {
  float const made = __builtin_bit_cast(float, 0xffc12345U);
  CHECK(__builtin_bit_cast(std::uint32_t, detail::with_plain_nan(made)) == 0x7fc00000U);
  double const wide = __builtin_bit_cast(double, 0xfff0000000000001U);
  CHECK(__builtin_bit_cast(std::uint64_t, detail::with_plain_nan(wide)) == 0x7ff8000000000000U);
  CHECK(std::signbit(detail::with_plain_nan(-0.0F)));
  CHECK(detail::with_plain_nan(std::numeric_limits<float>::infinity()) ==
        std::numeric_limits<float>::infinity());
}

TEST_CASE("parts of a complex product are rounded before they are added") {
  // (1 + e)^2 - (1 + 2e) is e^2 in a fused operation and 0 when the square is rounded first.
  double const e = std::ldexp(1.0, -30);
  using Number = shardmesh::Complex<double>;
  Number const a{1 + e, 1 + 2 * e};
  Number const b{1 + e, 1};
  CHECK(detail::combine<Number>(ReduceOp::product, a, b).re == 0.0);
}

TEST_CASE("only an average divides") {
  CHECK(detail::divisor_of(ReduceOp::avg, 5) == 5);
  CHECK(detail::divisor_of(ReduceOp::sum, 5) == 1);
  CHECK(detail::narrow<std::int32_t>(static_cast<std::uint32_t>(-7), 2) == -3);
  CHECK(detail::narrow<float>(7.0F, 2) == 3.5F);
}

TEST_SUITE_END();

}  // namespace reduce_arithmetic_test
