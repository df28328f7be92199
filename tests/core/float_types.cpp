// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/float_types.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

namespace float_types_test {

namespace sm = shardmesh;

using sm::BFloat16;
using sm::Float16;
using sm::Float8E4M3fn;
using sm::Float8E4M3fnuz;
using sm::Float8E5M2;
using sm::Float8E5M2fnuz;

static_assert(sizeof(Float16) == 2 && sizeof(BFloat16) == 2);
static_assert(sizeof(Float8E4M3fn) == 1 && sizeof(sm::Float8E8M0fnu) == 1);
static_assert(sizeof(sm::Float4E2M1fnX2) == 1 && sizeof(sm::Float6E2M3fnX4) == 3);
static_assert(std::is_trivially_copyable_v<Float16>);
static_assert(!std::is_convertible_v<float, Float16>);
static_assert(!std::is_convertible_v<Float16, float>);
static_assert(Float16(1.0F).bits == 0x3c00);  // in the compiler
static_assert(static_cast<float>(BFloat16(0.5F)) == 0.5F);

TEST_SUITE_BEGIN("core.float_types");

namespace {

template <class T>
T from_bits(std::uint32_t bits) {
  T value;
  value.bits = static_cast<decltype(value.bits)>(bits);
  return value;
}

template <class T>
inline constexpr std::uint32_t patterns = 1U << (8 * sizeof(T));

std::uint32_t word_of(float value) {
  return __builtin_bit_cast(std::uint32_t, value);
}

/// The finite, non-negative values in ascending order, as bits: 0, 1, 2, ...
template <class T>
std::uint32_t count_finite() {
  std::uint32_t count = 0;
  while (count < patterns<T> / 2 && std::isfinite(static_cast<float>(from_bits<T>(count)))) {
    ++count;
  }
  return count;
}

struct Golden {
  float value;
  std::uint32_t bits;
};

template <class T>
void check_golden(std::vector<Golden> const& rows) {
  for (auto const& [value, bits] : rows) {
    CAPTURE(value);
    CHECK(std::uint32_t{T(value).bits} == bits);
    float const back = static_cast<float>(from_bits<T>(bits));
    CHECK(std::signbit(back) == ((bits & (patterns<T> / 2)) != 0));
  }
}

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE_TEMPLATE("every value survives the way through float",
                   T,
                   Float16,
                   BFloat16,
                   Float8E4M3fn,
                   Float8E5M2,
                   Float8E4M3fnuz,
                   Float8E5M2fnuz) {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < patterns<T>; ++bits) {
    float const value = static_cast<float>(from_bits<T>(bits));
    T const back(value);
    bool const same =
        std::isnan(value) ? std::isnan(static_cast<float>(back)) : std::uint32_t{back.bits} == bits;
    wrong += same ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("a float goes to the nearest value, a tie to the even one",
                   T,
                   Float16,
                   BFloat16,
                   Float8E4M3fn,
                   Float8E5M2,
                   Float8E4M3fnuz,
                   Float8E5M2fnuz) {
  int wrong = 0;
  std::uint32_t const count = count_finite<T>();
  for (std::uint32_t low = 0; low + 1 < count; ++low) {
    float const a = static_cast<float>(from_bits<T>(low));
    float const b = static_cast<float>(from_bits<T>(low + 1));
    REQUIRE(a < b);
    float const middle = a + (b - a) / 2;
    std::uint32_t const even = low % 2 == 0 ? low : low + 1;
    wrong += std::uint32_t{T(middle).bits} == even ? 0 : 1;
    wrong += std::uint32_t{T(std::nextafter(middle, 0.0F)).bits} == low ? 0 : 1;
    wrong += std::uint32_t{T(std::nextafter(middle, infinity)).bits} == low + 1 ? 0 : 1;
    T const negative(-std::nextafter(middle, infinity));
    wrong += static_cast<float>(negative) == -b ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("bfloat16 is the upper half of a float, rounded") {
  std::mt19937 random(5);
  int wrong = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    auto const word = static_cast<std::uint32_t>(random());
    float const value = __builtin_bit_cast(float, word);
    if (std::isnan(value)) {
      wrong += std::isnan(static_cast<float>(BFloat16(value))) ? 0 : 1;
      continue;
    }
    std::uint32_t const naive = (word + 0x7fffU + ((word >> 16) & 1U)) >> 16;
    wrong += std::uint32_t{BFloat16(value).bits} == naive ? 0 : 1;
  }
  for (std::uint32_t bits = 0; bits < patterns<BFloat16>; ++bits) {
    wrong += word_of(static_cast<float>(from_bits<BFloat16>(bits))) == bits << 16 ? 0 : 1;
  }
  CHECK(wrong == 0);
}

#if defined(__FLT16_MANT_DIG__)
TEST_CASE("float16 converts as the compiler's own type does") {
  __extension__ using Native = _Float16;
  std::mt19937 random(6);
  int wrong = 0;
  auto const check = [&wrong](float value) {
    auto const native = static_cast<Native>(value);
    bool const same = std::isnan(value)
                          ? std::isnan(static_cast<float>(Float16(value)))
                          : Float16(value).bits == __builtin_bit_cast(std::uint16_t, native);
    wrong += same ? 0 : 1;
  };
  for (int i = 0; i < 1'000'000; ++i) {
    check(__builtin_bit_cast(float, static_cast<std::uint32_t>(random())));
    auto const exponent = 100U + static_cast<std::uint32_t>(random() % 48);  // around the range
    auto const rest = static_cast<std::uint32_t>(random()) & 0x807fffffU;
    check(__builtin_bit_cast(float, (exponent << 23) | rest));
  }
  for (std::uint32_t bits = 0; bits < patterns<Float16>; ++bits) {
    auto const native = __builtin_bit_cast(Native, static_cast<std::uint16_t>(bits));
    float const value = static_cast<float>(from_bits<Float16>(bits));
    bool const same = std::isnan(value) || word_of(value) == word_of(static_cast<float>(native));
    wrong += same ? 0 : 1;
  }
  CHECK(wrong == 0);
}
#endif

TEST_CASE("float16 has IEEE's limits") {
  check_golden<Float16>({{0.0F, 0x0000},
                         {-0.0F, 0x8000},
                         {1.0F, 0x3c00},
                         {65504.0F, 0x7bff},
                         {65519.0F, 0x7bff},
                         {65520.0F, 0x7c00},
                         {-infinity, 0xfc00},
                         {std::ldexp(1.0F, -24), 0x0001},
                         {std::ldexp(1.0F, -25), 0x0000},
                         {std::ldexp(1.5F, -25), 0x0001},
                         {std::ldexp(1.0F, -14), 0x0400}});
}

TEST_CASE("bfloat16 has the range of float") {
  check_golden<BFloat16>({{1.0F, 0x3f80},
                          {3.14159274F, 0x4049},
                          {-2.0F, 0xc000},
                          {std::numeric_limits<float>::max(), 0x7f80},
                          {infinity, 0x7f80},
                          {std::ldexp(1.0F, -133), 0x0001},
                          {-0.0F, 0x8000}});
}

TEST_CASE("float8_e4m3fn has no infinity and ends at 448") {
  check_golden<Float8E4M3fn>({{1.0F, 0x38},
                              {448.0F, 0x7e},
                              {464.0F, 0x7e},
                              {465.0F, 0x7f},
                              {infinity, 0x7f},
                              {-infinity, 0xff},
                              {not_a_number, 0x7f},
                              {-0.0F, 0x80},
                              {std::ldexp(1.0F, -9), 0x01},
                              {std::ldexp(1.0F, -10), 0x00},
                              {0.1F, 0x1d},
                              {-1.75F, 0xbe}});
  CHECK(std::isnan(static_cast<float>(from_bits<Float8E4M3fn>(0xff))));
}

TEST_CASE("float8_e5m2 is the upper half of a float16") {
  check_golden<Float8E5M2>({{1.0F, 0x3c},
                            {57344.0F, 0x7b},
                            {61439.0F, 0x7b},
                            {61440.0F, 0x7c},
                            {infinity, 0x7c},
                            {-infinity, 0xfc},
                            {std::ldexp(1.0F, -16), 0x01},
                            {0.1F, 0x2e},
                            {-0.0F, 0x80}});
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    float const value = static_cast<float>(from_bits<Float8E5M2>(bits));
    float const half = static_cast<float>(from_bits<Float16>(bits << 8));
    CHECK(word_of(value) == word_of(half));
  }
}

TEST_CASE("the fnuz formats have one zero, and minus zero is their NaN") {
  check_golden<Float8E4M3fnuz>({{1.0F, 0x40},
                                {240.0F, 0x7f},
                                {0.0F, 0x00},
                                {-0.0F, 0x00},
                                {-1.0F, 0xc0},
                                {std::ldexp(1.0F, -10), 0x01}});
  check_golden<Float8E5M2fnuz>(
      {{1.0F, 0x40}, {57344.0F, 0x7f}, {-0.0F, 0x00}, {std::ldexp(1.0F, -17), 0x01}});
  for (float value : {infinity, -infinity, not_a_number, 1e9F}) {
    CHECK(Float8E4M3fnuz(value).bits == 0x80);
    CHECK(Float8E5M2fnuz(value).bits == 0x80);
  }
  CHECK(Float8E4M3fnuz(-1e-9F).bits == 0x00);
  CHECK(std::isnan(static_cast<float>(from_bits<Float8E4M3fnuz>(0x80))));
  CHECK(std::isnan(static_cast<float>(from_bits<Float8E5M2fnuz>(0x80))));
}

TEST_CASE("a block scale is a power of two") {
  CHECK(static_cast<float>(sm::Float8E8M0fnu{127}) == 1.0F);
  CHECK(static_cast<float>(sm::Float8E8M0fnu{254}) == std::ldexp(1.0F, 127));
  CHECK(static_cast<float>(sm::Float8E8M0fnu{1}) == std::ldexp(1.0F, -126));
  CHECK(static_cast<float>(sm::Float8E8M0fnu{0}) == std::ldexp(1.0F, -127));
  CHECK(std::isnan(static_cast<float>(sm::Float8E8M0fnu{255})));
}

TEST_CASE("small floats compare by their bits") {
  CHECK(Float16(not_a_number) == Float16(not_a_number));
  CHECK_FALSE(Float16(0.0F) == Float16(-0.0F));
  CHECK(sm::Float8E8M0fnu{127} == sm::Float8E8M0fnu{127});
  CHECK_FALSE(sm::Float6E2M3fnX4{{1, 2, 3}} == sm::Float6E2M3fnX4{{1, 2, 4}});
}

TEST_SUITE_END();

}  // namespace float_types_test
