// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/host_reduce.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include "terms.hpp"

namespace host_reduce_test {

namespace sm = shardmesh;

using sm::DType;
using sm::ReduceOp;

TEST_SUITE_BEGIN("memory.host_reduce");

namespace {

template <class T>
std::vector<T> reduced(ReduceOp op, std::vector<std::vector<T>> const& terms) {
  std::vector<T> result(terms[0].size());
  std::vector<void const*> sources;
  for (auto const& term : terms) {
    sources.push_back(term.data());
  }
  sm::host_reduce(sm::dtype_of<T>, op, result.data(), sources,
                  static_cast<sm::index_t>(result.size()));
  return result;
}

/// The bytes of one naive result; NaN as the plain quiet NaN.
using Bytes = std::vector<std::byte>;

template <class T>
Bytes bytes_of(T const& value) {
  auto const* first = reinterpret_cast<std::byte const*>(&value);
  return Bytes(first, first + sizeof(T));
}

template <class Real>
Real plain(Real value) {
  return std::isnan(value) ? std::numeric_limits<Real>::quiet_NaN() : value;
}

template <class Real>
Real naive_real(ReduceOp op, std::vector<Real> const& terms) {
  Real total = terms[0];
  for (std::size_t j = 1; j < terms.size(); ++j) {
    Real const next = terms[j];
    bool const nan = std::isnan(total) || std::isnan(next);
    if (op == ReduceOp::product) {
      total *= next;
    } else if (op == ReduceOp::min) {
      total = nan ? std::numeric_limits<Real>::quiet_NaN() : next < total ? next : total;
    } else if (op == ReduceOp::max) {
      total = nan ? std::numeric_limits<Real>::quiet_NaN() : next > total ? next : total;
    } else {
      total += next;
    }
  }
  return plain(op == ReduceOp::avg ? total / static_cast<Real>(terms.size()) : total);
}

template <class T>
T naive_integer(ReduceOp op, std::vector<T> const& terms) {
  T total = terms[0];
  for (std::size_t j = 1; j < terms.size(); ++j) {
    auto const a = static_cast<std::uint64_t>(total);
    auto const b = static_cast<std::uint64_t>(terms[j]);
    if (op == ReduceOp::min) {
      total = std::min(total, terms[j]);
    } else if (op == ReduceOp::max) {
      total = std::max(total, terms[j]);
    } else {
      total = static_cast<T>(op == ReduceOp::product ? a * b : a + b);
    }
  }
  if (op != ReduceOp::avg) {
    return total;
  }
  if constexpr (std::is_signed_v<T>) {
    return static_cast<T>(std::int64_t{total} / static_cast<std::int64_t>(terms.size()));
  } else {
    return static_cast<T>(std::uint64_t{total} / terms.size());
  }
}

template <class Real>
sm::Complex<Real> naive_complex(ReduceOp op, std::vector<sm::Complex<Real>> const& terms) {
  Real re = terms[0].real();
  Real im = terms[0].imag();
  for (std::size_t j = 1; j < terms.size(); ++j) {
    Real const x = terms[j].real();
    Real const y = terms[j].imag();
    if (op == ReduceOp::product) {
      Real const volatile products[] = {re * x, im * y, re * y, im * x};
      re = products[0] - products[1];
      im = products[2] + products[3];
    } else {
      re += x;
      im += y;
    }
  }
  auto const by = static_cast<Real>(op == ReduceOp::avg ? terms.size() : 1);
  return {plain(re / by), plain(im / by)};
}

template <class T>
Bytes naive(ReduceOp op, std::vector<Bytes> const& terms, std::size_t i) {
  auto const each = [&]<class U>(std::type_identity<U>) {
    std::vector<U> values(terms.size());
    for (std::size_t j = 0; j < terms.size(); ++j) {
      std::memcpy(&values[j], terms[j].data() + i * sizeof(U), sizeof(U));
    }
    return values;
  };
  if constexpr (std::is_same_v<T, bool>) {
    bool all = true;
    bool any = false;
    for (std::uint8_t byte : each(std::type_identity<std::uint8_t>{})) {
      all = all && byte != 0;
      any = any || byte != 0;
    }
    return {std::byte{op == ReduceOp::min || op == ReduceOp::product ? all : any}};
  } else if constexpr (std::is_integral_v<T>) {
    return bytes_of(naive_integer(op, each(std::type_identity<T>{})));
  } else if constexpr (std::is_floating_point_v<T>) {
    return bytes_of(naive_real(op, each(std::type_identity<T>{})));
  } else if constexpr (std::is_same_v<T, sm::Complex<float>> ||
                       std::is_same_v<T, sm::Complex<double>>) {
    return bytes_of(naive_complex(op, each(std::type_identity<T>{})));
  } else {
    std::vector<float> values;
    for (T const value : each(std::type_identity<T>{})) {
      values.push_back(static_cast<float>(value));
    }
    return bytes_of(T(naive_real(op, values)));
  }
}

template <class T>
void check_against_naive(ReduceOp op, int count_terms) {
  constexpr sm::index_t count = 1100;  // more than two blocks, and a part of one
  std::vector<Bytes> terms;
  std::vector<void const*> sources;
  for (int j = 0; j < count_terms; ++j) {
    terms.push_back(terms::random_elements(sm::dtype_of<T>, count, static_cast<unsigned>(7 * j)));
  }
  for (Bytes const& term : terms) {
    sources.push_back(term.data());
  }
  Bytes result(terms[0].size());
  sm::host_reduce(sm::dtype_of<T>, op, result.data(), sources, count);
  int wrong = 0;
  for (std::size_t i = 0; i < std::size_t{count}; ++i) {
    auto const first = result.begin() + static_cast<std::ptrdiff_t>(i * sizeof(T));
    wrong += Bytes(first, first + sizeof(T)) == naive<T>(op, terms, i) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("every dtype and operation gives the bits of the naive reduction") {
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    for (ReduceOp op : terms::all_ops) {
      if (!terms::is_reducible(info.dtype, op)) {
        continue;
      }
      CAPTURE(std::string(info.name));
      CAPTURE(std::string(to_string(op)));
      for (int count_terms : {1, 2, 3, 8}) {
        CAPTURE(count_terms);
        sm::visit_dtype(info.dtype, [&]<class T>(std::type_identity<T>) {
          if constexpr (sm::has_arithmetic(sm::dtype_of<T>)) {
            check_against_naive<T>(op, count_terms);
          }
        });
      }
    }
  }
}

TEST_CASE("the destination may be the first source, and addresses need no alignment") {
  auto const first = terms::random_elements(DType::float64, 1000, 1);
  auto const second = terms::random_elements(DType::float64, 1000, 2);
  Bytes expected(first.size());
  void const* const apart[] = {first.data(), second.data()};
  sm::host_reduce(DType::float64, ReduceOp::sum, expected.data(), apart, 1000);
  Bytes shifted(first.size() + 1);
  std::memcpy(shifted.data() + 1, first.data(), first.size());
  void const* const alias[] = {shifted.data() + 1, second.data()};
  sm::host_reduce(DType::float64, ReduceOp::sum, shifted.data() + 1, alias, 1000);
  CHECK(Bytes(shifted.begin() + 1, shifted.end()) == expected);
}

TEST_CASE("terms are added in the order of the sources") {
  float const big = 16777216.0F;  // 2^24: adding one is lost
  CHECK(reduced<float>(ReduceOp::sum, {{big}, {1}, {1}}) == std::vector<float>{big});
  CHECK(reduced<float>(ReduceOp::sum, {{1}, {1}, {big}}) == std::vector<float>{big + 2});
}

TEST_CASE("small floats are added in float and rounded once") {
  sm::BFloat16 const one(1.0F);
  sm::BFloat16 const small(0.00390625F);  // 2^-8: half a unit in the last place of one
  CHECK(reduced<sm::BFloat16>(ReduceOp::sum, {{one}, {small}, {small}}) ==
        std::vector{sm::BFloat16(1.0078125F)});
}

TEST_CASE("integers wrap, averages truncate towards zero") {
  CHECK(reduced<std::int8_t>(ReduceOp::sum, {{100}, {100}}) == std::vector<std::int8_t>{-56});
  CHECK(reduced<std::int32_t>(ReduceOp::product, {{1 << 20}, {1 << 12}}) ==
        std::vector<std::int32_t>{0});
  CHECK(reduced<std::int64_t>(ReduceOp::avg, {{-3, 3}, {-4, 4}}) ==
        std::vector<std::int64_t>{-3, 3});
  CHECK(reduced<std::uint64_t>(ReduceOp::avg, {{~std::uint64_t{0}}, {0}}) ==
        std::vector<std::uint64_t>{~std::uint64_t{0} / 2});
}

TEST_CASE("an average of more terms than the element type counts is right") {
  std::vector<std::vector<std::int8_t>> const terms(256, std::vector<std::int8_t>{1});
  CHECK(reduced<std::int8_t>(ReduceOp::avg, terms) == std::vector<std::int8_t>{0});
  std::vector<std::vector<std::uint8_t>> const more(200, std::vector<std::uint8_t>{1});
  CHECK(reduced<std::uint8_t>(ReduceOp::avg, more) == std::vector<std::uint8_t>{1});
}

TEST_CASE("truth values: sum, avg and max are or, product and min are and") {
  bool const a[] = {false, false, true, true};
  bool const b[] = {false, true, false, true};
  void const* const sources[] = {a, b};
  for (ReduceOp op : terms::all_ops) {
    bool result[4];
    sm::host_reduce(DType::boolean, op, result, sources, 4);
    bool const both = op == ReduceOp::product || op == ReduceOp::min;
    CAPTURE(std::string(to_string(op)));
    CHECK(result[0] == false);
    CHECK(result[1] == !both);
    CHECK(result[2] == !both);
    CHECK(result[3] == true);
  }
}

TEST_CASE("a NaN wins min and max, wherever it stands") {
  float const nan = -std::numeric_limits<float>::quiet_NaN();
  for (ReduceOp op : {ReduceOp::min, ReduceOp::max}) {
    auto const result = reduced<float>(op, {{nan, 1, 1}, {1, nan, 1}, {2, 2, nan}});
    for (float const value : result) {
      CHECK(std::isnan(value));
      CHECK_FALSE(std::signbit(value));
    }
  }
}

TEST_CASE("no elements are no work") {
  void const* const sources[] = {nullptr, nullptr};
  sm::host_reduce(DType::float32, ReduceOp::sum, nullptr, sources, 0);
}

TEST_CASE("reductions without a meaning are refused") {
  float value = 0;
  void const* const sources[] = {&value};
  auto const reduce = [&](DType dtype, ReduceOp op) {
    sm::host_reduce(dtype, op, &value, sources, 0);
  };
  CHECK_THROWS_AS(reduce(DType::complex64, ReduceOp::min), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(reduce(DType::complex128, ReduceOp::max),
                       doctest::Contains("max of complex128"), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(reduce(DType::float8_e8m0fnu, ReduceOp::sum),
                       doctest::Contains("block scale"), sm::UnsupportedError);
  for (DType const packed :
       {DType::float4_e2m1fn_x2, DType::float6_e2m3fn_x4, DType::float6_e3m2fn_x4}) {
    CHECK_THROWS_WITH_AS(
        reduce(packed, ReduceOp::max),
        doctest::Contains("holds several numbers in an element, without arithmetic"),
        sm::UnsupportedError);
  }
  CHECK_THROWS_WITH_AS(sm::host_reduce(DType::float32, ReduceOp::sum, &value, {}, 1),
                       doctest::Contains("no sources"), sm::InvalidArgument);
}

TEST_SUITE_END();

}  // namespace host_reduce_test
