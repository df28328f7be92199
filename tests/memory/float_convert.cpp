// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/float_convert.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "../support/errors.hpp"

namespace float_convert_test {

namespace sm = shardmesh;

namespace {

template <class To, class From>
To convert_one(From value) {
  To result{};
  sm::host_convert(sm::dtype_of<From>, &value, sm::dtype_of<To>, &result, 1);
  return result;
}

}  // namespace

TEST_SUITE_BEGIN("memory.float_convert");

TEST_CASE("conversions round to nearest, ties to even") {
  CHECK(convert_one<float>(0.1) == 0.1F);
  CHECK(convert_one<double>(0.1F) == static_cast<double>(0.1F));
  // bfloat16 keeps 8 bits of 1.xxxxxxx: halves go to the even neighbour.
  CHECK(convert_one<sm::BFloat16>(1.00390625F) == sm::BFloat16(1.0F));       // 1 + 2^-8
  CHECK(convert_one<sm::BFloat16>(1.01171875F) == sm::BFloat16(1.015625F));  // 1 + 3 * 2^-8
  CHECK(convert_one<sm::BFloat16>(1.00390637F) == sm::BFloat16(1.0078125F));
  // Half way to the last bit: rounding to float first would hide what lies below.
  CHECK(convert_one<sm::BFloat16>(1.00390625 + 1e-12) == sm::BFloat16(1.0078125F));
  CHECK(convert_one<sm::Float16>(65520.0F) == sm::Float16(std::numeric_limits<float>::infinity()));
  CHECK(convert_one<float>(sm::Float16(0.333251953125F)) == 0.333251953125F);
  CHECK(convert_one<double>(sm::BFloat16(-2.5F)) == -2.5);
  CHECK(std::isnan(convert_one<float>(convert_one<sm::BFloat16>(std::nan("")))));
  CHECK(convert_one<sm::BFloat16>(convert_one<sm::Float16>(0.5)) == sm::BFloat16(0.5F));
}

TEST_CASE("every float16 and bfloat16 survives the way through wider types") {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    sm::BFloat16 brain;
    brain.bits = static_cast<std::uint16_t>(bits);
    sm::Float16 half;
    half.bits = static_cast<std::uint16_t>(bits);
    if (!std::isnan(static_cast<float>(brain))) {
      REQUIRE(convert_one<sm::BFloat16>(convert_one<double>(brain)) == brain);
    }
    if (!std::isnan(static_cast<float>(half))) {
      REQUIRE(convert_one<sm::Float16>(convert_one<float>(half)) == half);
    }
  }
}

TEST_CASE("types that do not convert are refused; no elements are fine") {
  std::vector<int> numbers{1};
  float value = 0;
  auto const text = test::error_of<sm::UnsupportedError>(
      [&] { sm::host_convert(sm::DType::int32, numbers.data(), sm::DType::float32, &value, 1); });
  CHECK(text.find("no conversion from int32 to float32") != std::string::npos);
  sm::host_convert(sm::DType::float32, nullptr, sm::DType::bfloat16, nullptr, 0);
}

TEST_SUITE_END();

}  // namespace float_convert_test
