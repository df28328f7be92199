// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <complex>
#include <span>
#include <string>
#include <type_traits>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/reduce_op.hpp>
#include <shardmesh/memory/reduce_arithmetic.hpp>

namespace shardmesh::inline v0 {

/// Refuses what has no meaning.
/// @throws InvalidArgument for min and max of complex numbers, which have no order.
/// @throws UnsupportedError for float8_e8m0fnu, a scale that cannot hold sums.
inline void check_reducible(DType dtype, ReduceOp op) {
  bool const ordered = op == ReduceOp::min || op == ReduceOp::max;
  if (ordered && (dtype == DType::complex64 || dtype == DType::complex128)) {
    throw InvalidArgument("shardmesh::reduce: " + std::string(to_string(op)) + " of " +
                          std::string(to_string(dtype)) +
                          " has no meaning; complex numbers have no order");
  }
  if (dtype == DType::float8_e8m0fnu) {
    throw UnsupportedError("shardmesh::reduce: float8_e8m0fnu is a block scale without arithmetic; "
                           "reduce the scaled values in another dtype");
  }
}

/// destination[i] = op over sources[j][i], j ascending: the same bits on every run and every engine.
/// Small floats are added in float and rounded once; integers wrap, their average truncates;
/// bool: sum and max are "or", product and min are "and"; a NaN makes min and max NaN.
/// @param destination may be the first source.
/// @throws as check_reducible.
/// @pre sources is not empty; all hold `count` contiguous elements.
inline void host_reduce(DType dtype,
                        ReduceOp op,
                        void* destination,
                        std::span<void const* const> sources,
                        index_t count) {
  check_reducible(dtype, op);
  visit_dtype(dtype, [&]<class T>(std::type_identity<T>) {
    if constexpr (!std::is_same_v<T, Float8E8M0fnu>) {
      auto* const out = static_cast<T*>(destination);
      auto const terms = static_cast<int>(sources.size());
      for (index_t i = 0; i < count; ++i) {
        auto sum = detail::load_term(static_cast<T const*>(sources[0]) + i);
        for (std::size_t j = 1; j < sources.size(); ++j) {
          sum = detail::combine<T>(op, sum,
                                   detail::load_term(static_cast<T const*>(sources[j]) + i));
        }
        detail::store_term(out + i, op, sum, terms);
      }
    }
  });
}

}  // namespace shardmesh::inline v0
