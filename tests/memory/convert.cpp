// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Conversions against the definition: the nearest of all values of the format, the even one of two.
#include <shardmesh/memory/convert.hpp>

#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace convert_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("memory.convert");

namespace {

template <class To, class From>
std::vector<To> converted(std::vector<From> const& from) {
  std::vector<To> to(from.size());
  sm::convert_elements(sm::dtype_of<From>, from.data(), sm::dtype_of<To>, to.data(), from.size());
  return to;
}

/// The bits of the finite value of `Small` nearest to `value`, found by looking at all of them.
template <class Small>
unsigned nearest(double value) {
  unsigned best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (unsigned bits = 0; bits < (1U << (8 * sizeof(Small))); ++bits) {
    Small candidate;
    candidate.bits = static_cast<decltype(candidate.bits)>(bits);
    auto const held = static_cast<double>(static_cast<float>(candidate));
    bool const is_only_zero = held == 0 && Small(-0.0F).bits == 0;
    if (!std::isfinite(held) || (std::signbit(held) != std::signbit(value) && !is_only_zero)) {
      continue;
    }
    double const distance = std::fabs(held - value);
    if (distance < least || (distance == least && bits % 2 == 0)) {
      least = distance;
      best = bits;
    }
  }
  return best;
}

template <class Small>
void check_against_all(unsigned seed, double largest) {
  std::mt19937_64 random(seed);
  std::vector<double> values;
  for (int i = 0; i < 60; ++i) {
    double const power = std::ldexp(1.0, static_cast<int>(random() % 20) - 10);
    values.push_back((static_cast<double>(random() % 4096) / 4096 - 0.5) * power);
  }
  // Halfway between two values, and so near to it that float rounds the difference away.
  for (std::size_t i = 0; i < 60; ++i) {
    Small at(static_cast<float>(values[i]));
    Small next = at;
    ++next.bits;
    double const half = (double{static_cast<float>(at)} + double{static_cast<float>(next)}) / 2;
    if (std::isfinite(half)) {
      values.insert(values.end(), {half, half * (1 + 1e-15), half * (1 - 1e-15)});
    }
  }
  std::vector<Small> const got = converted<Small>(values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::fabs(values[i]) < largest) {
      INFO(values[i]);
      CHECK(got[i].bits == nearest<Small>(values[i]));
    }
  }
}

}  // namespace

TEST_CASE("double to small formats rounds once, to nearest, ties to even") {
  check_against_all<sm::Float8E4M3fn>(1, 448);
  check_against_all<sm::Float8E5M2>(2, 57344);
  check_against_all<sm::Float8E4M3fnuz>(3, 240);
  check_against_all<sm::Float8E5M2fnuz>(4, 57344);
}

TEST_CASE("double to float16 and bfloat16 rounds once, to nearest, ties to even") {
  check_against_all<sm::Float16>(5, 65504);
  check_against_all<sm::BFloat16>(6, 3e38);
}

TEST_CASE("what is too large, not a number, or exact") {
  double const inf = std::numeric_limits<double>::infinity();
  auto const half = converted<sm::Float16>(std::vector<double>{1e10, -inf, 65519.999, 65520});
  CHECK(half[0].bits == 0x7c00);
  CHECK(half[1].bits == 0xfc00);
  CHECK(half[2].bits == 0x7bff);
  CHECK(half[3].bits == 0x7c00);
  auto const tiny = converted<sm::BFloat16>(std::vector<double>{1e-300, -1e-300, 1e300});
  CHECK(tiny[0].bits == 0);
  CHECK(tiny[1].bits == 0x8000);
  CHECK(tiny[2].bits == 0x7f80);
  CHECK(std::isnan(converted<float>(std::vector<double>{std::nan("")})[0]));
  CHECK(converted<double>(std::vector<sm::BFloat16>{sm::BFloat16(1.5F)})[0] == 1.5);
  CHECK(converted<float>(std::vector<double>{0.1})[0] == 0.1F);
  auto const complex =
      converted<std::complex<float>>(std::vector<std::complex<double>>{{0.1, -2.5}});
  CHECK(complex[0] == std::complex<float>(0.1F, -2.5F));
}

TEST_CASE("integers keep their value or are refused; long runs cross the blocks") {
  std::vector<std::int64_t> many(1300);
  for (std::size_t i = 0; i < many.size(); ++i) {
    many[i] = static_cast<std::int64_t>(i % 128);
  }
  auto const small = converted<std::int8_t>(many);
  for (std::size_t i = 0; i < many.size(); ++i) {
    CHECK(small[i] == many[i]);
  }
  CHECK(converted<std::uint64_t>(std::vector<std::int8_t>{127})[0] == 127);
  CHECK(converted<std::uint8_t>(std::vector<std::uint64_t>{255})[0] == 255);
  std::vector<unsigned char> const truth{0, 1, 255};
  std::vector<std::int32_t> numbers(3);
  sm::convert_elements(sm::DType::boolean, truth.data(), sm::DType::int32, numbers.data(), 3);
  CHECK(numbers == std::vector<std::int32_t>{0, 1, 1});
  CHECK_THROWS_WITH_AS(converted<std::uint8_t>(std::vector<std::int16_t>{-1}),
                       doctest::Contains("-1 does not fit"), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(converted<std::int64_t>(std::vector<std::uint64_t>{UINT64_MAX}),
                       doctest::Contains("does not fit"), sm::InvalidArgument);
  CHECK_THROWS_AS(converted<std::uint8_t>(std::vector<std::int16_t>{256}), sm::InvalidArgument);
}

TEST_CASE("what is convertible") {
  using enum sm::DType;
  CHECK(sm::is_convertible(float32, bfloat16));
  CHECK(sm::is_convertible(complex64, complex128));
  CHECK(sm::is_convertible(boolean, int64));
  CHECK(sm::is_convertible(float8_e8m0fnu, float8_e8m0fnu));
  CHECK_FALSE(sm::is_convertible(float8_e8m0fnu, float32));
  CHECK_FALSE(sm::is_convertible(int32, float32));
  CHECK_FALSE(sm::is_convertible(float32, complex64));
  std::vector<sm::Float8E8M0fnu> const scales{{3}, {9}};
  CHECK(converted<sm::Float8E8M0fnu>(scales) == scales);
  CHECK_FALSE(sm::is_convertible(float4_e2m1fn_x2, float32));
  CHECK_FALSE(sm::is_convertible(float4_e2m1fn_x2, float8_e8m0fnu));
  CHECK_FALSE(sm::is_convertible(float6_e2m3fn_x4, float6_e3m2fn_x4));
  std::vector<sm::Float6E3M2fnX4> const six(600, sm::Float6E3M2fnX4{{1, 2, 3}});
  CHECK(converted<sm::Float6E3M2fnX4>(six) == six);
}

TEST_SUITE_END();

}  // namespace convert_test
