// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/state/number.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include <doctest/doctest.h>

namespace number_test {

namespace sm = shardmesh;

namespace {

template <class T>
std::string read(T element) {
  auto const number = sm::number_of(sm::dtype_of<T>, &element);
  return number ? std::string(number->kind()) + " " + sm::to_string(*number) : "nothing";
}

/// "exact", "rounded" or "nothing", with what the element is.
std::string write(sm::Value const& value, sm::DType dtype) {
  auto const element = sm::element_of_number(value, dtype);
  if (!element) {
    return "nothing";
  }
  CHECK(element->bytes.size() == sm::size_of(dtype));
  return (element->exact ? "exact " : "rounded ") +
         sm::to_string(*sm::number_of(dtype, element->bytes.data()));
}

}  // namespace

TEST_SUITE_BEGIN("state.number");

TEST_CASE("an element is the number that it is") {
  CHECK(read(0.1F) == "float 0.10000000149011612");
  CHECK(read(0.1) == "float 0.1");
  CHECK(read(sm::BFloat16(0.25F)) == "float 0.25");
  CHECK(read(std::int8_t{-3}) == "int -3");
  CHECK(read(std::uint64_t{1} << 62) == "int 4611686018427387904");
  CHECK(read(~std::uint64_t{0}) == "nothing");
  CHECK(read(true) == "bool True");
  CHECK(read(sm::Complex<float>{1, 0}) == "nothing");
}

TEST_CASE("a number becomes an element exactly, or it is told") {
  CHECK(write(2, sm::DType::float32) == "exact 2.0");
  CHECK(write(16777217, sm::DType::float32) == "rounded 16777216.0");
  CHECK(write(std::int64_t{9007199254740993}, sm::DType::float64) == "rounded 9007199254740992.0");
  CHECK(write(std::numeric_limits<std::int64_t>::max(), sm::DType::float64) ==
        "rounded 9223372036854775808.0");
  CHECK(write(0.5, sm::DType::float32) == "exact 0.5");
  CHECK(write(0.1, sm::DType::float32) == "rounded 0.10000000149011612");
  CHECK(write(std::nan(""), sm::DType::float16) == "exact nan");
  CHECK(write(HUGE_VAL, sm::DType::float16) == "exact inf");
  CHECK(write(3.0, sm::DType::int64) == "exact 3");
  CHECK(write(2.5, sm::DType::int64) == "nothing");
  CHECK(write(1e30, sm::DType::int64) == "nothing");
  CHECK(write(std::nan(""), sm::DType::int32) == "nothing");
  CHECK(write(300, sm::DType::int8) == "nothing");
  CHECK(write(-1, sm::DType::uint16) == "nothing");
  CHECK(write(true, sm::DType::boolean) == "exact True");
  CHECK(write(2, sm::DType::boolean) == "nothing");
  CHECK(write(1, sm::DType::complex64) == "nothing");
  CHECK(write("2", sm::DType::float32) == "nothing");
  CHECK(write(sm::Value(), sm::DType::float32) == "nothing");
}

TEST_SUITE_END();

}  // namespace number_test
