// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/dtype.hpp>

#include <bit>
#include <complex>
#include <cstddef>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

namespace dtype_test {

namespace sm = shardmesh;

using sm::DType;

static_assert(sm::Element<float>);
static_assert(sm::Element<sm::BFloat16>);
static_assert(sm::Element<sm::Complex<float>>);
static_assert(sm::dtype_of<std::complex<float>> == DType::complex64);
static_assert(sm::dtype_of<std::complex<double>> == DType::complex128);
static_assert(sm::Element<bool>);
static_assert(!sm::Element<long double>);
static_assert(!sm::Element<std::complex<long double>>);
static_assert(!sm::Element<std::complex<float> const>);
static_assert(sizeof(sm::Complex<float>) == sizeof(std::complex<float>) &&
              alignof(sm::Complex<float>) == alignof(std::complex<float>));
static_assert(sizeof(sm::Complex<double>) == sizeof(std::complex<double>) &&
              alignof(sm::Complex<double>) == alignof(std::complex<double>));
static_assert(!sm::Element<std::vector<float>>);
static_assert(!sm::Element<char*>);
static_assert(!sm::Element<float const>);
static_assert(sm::dtype_of<double> == DType::float64);
static_assert(sm::size_of(DType::complex128) == 16);
static_assert(to_string(DType::boolean) == "bool");

TEST_SUITE_BEGIN("core.dtype");

TEST_CASE("the table is in the order of the enumeration, with names of their own") {
  std::set<std::string> names;
  for (std::size_t i = 0; i < sm::dtype_table.size(); ++i) {
    CHECK(static_cast<std::size_t>(sm::dtype_table[i].dtype) == i);
    names.emplace(sm::dtype_table[i].name);
  }
  CHECK(names.size() == sm::dtype_table.size());
  CHECK(to_string(DType::float8_e4m3fnuz) == "float8_e4m3fnuz");
}

TEST_CASE("a visit gives the type whose dtype and size are in the table") {
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    CAPTURE(std::string(info.name));
    sm::visit_dtype(info.dtype, [&]<class T>(std::type_identity<T>) {
      CHECK(sm::dtype_of<T> == info.dtype);
      CHECK(sizeof(T) == info.size);
      CHECK(sm::size_of(info.dtype) == info.size);
    });
  }
}

TEST_CASE("packed numbers and scales have no arithmetic") {
  int without = 0;
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    without += sm::has_arithmetic(info.dtype) ? 0 : 1;
    CHECK(sm::is_packed(info.dtype) == (info.name.find("_x") != std::string_view::npos));
  }
  CHECK(without == 4);
}

TEST_CASE("Complex has the bits of std::complex") {
  auto const number = std::bit_cast<sm::Complex<float>>(std::complex<float>(1.5F, -2.0F));
  CHECK(number.re == 1.5F);
  CHECK(number.im == -2.0F);
  CHECK(number == sm::Complex<float>{1.5F, -2.0F});
}

TEST_SUITE_END();

}  // namespace dtype_test
