// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Terms of reductions for the tests: every bit pattern that an element may have, and the reductions
// that have a meaning.

#include <array>
#include <cstddef>
#include <random>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/reduce_op.hpp>

namespace terms {

namespace sm = shardmesh;

inline constexpr std::array all_ops{sm::ReduceOp::sum, sm::ReduceOp::avg, sm::ReduceOp::min,
                                    sm::ReduceOp::max, sm::ReduceOp::product};

[[nodiscard]] constexpr bool is_reducible(sm::DType dtype, sm::ReduceOp op) {
  bool const ordered = op == sm::ReduceOp::min || op == sm::ReduceOp::max;
  bool const complex = dtype == sm::DType::complex64 || dtype == sm::DType::complex128;
  return sm::has_arithmetic(dtype) && !(ordered && complex);
}

/// Random elements: values near one that survive a sum, and in between any pattern of bits: NaN
/// with a payload, infinities, subnormal numbers, minus zero, truth values other than 0 and 1.
[[nodiscard]] inline std::vector<std::byte> random_elements(sm::DType dtype,
                                                            sm::index_t count,
                                                            unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> result(static_cast<std::size_t>(count) * sm::size_of(dtype));
  for (std::byte& byte : result) {
    byte = static_cast<std::byte>(random());
  }
  std::size_t const size = sm::size_of(dtype);
  bool const is_float = dtype == sm::DType::float32 || dtype == sm::DType::complex64;
  bool const is_double = dtype == sm::DType::float64 || dtype == sm::DType::complex128;
  std::size_t const real = is_float ? 4 : is_double ? 8 : 0;
  for (std::size_t i = 0; real > 0 && i + size <= result.size(); i += real) {
    if (random() % 4 != 0) {  // an exponent near that of one, any sign and mantissa
      result[i + real - 1] = static_cast<std::byte>(0x3fU | ((random() % 2) << 7));
    }
  }
  return result;
}

}  // namespace terms
