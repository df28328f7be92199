// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/reduce_op.hpp>
#include <shardmesh/memory/reduce_arithmetic.hpp>

namespace shardmesh {
inline namespace v0 {

/// Refuses what has no meaning.
/// @throws InvalidArgument for min and max of complex numbers, which have no order, and for no
/// terms
///   at all.
/// @throws UnsupportedError for elements without arithmetic: block scales and packed numbers.
inline void check_reducible(DType dtype, ReduceOp op, std::size_t terms) {
  bool const ordered = op == ReduceOp::min || op == ReduceOp::max;
  if (ordered && (dtype == DType::complex64 || dtype == DType::complex128)) {
    throw InvalidArgument("shardmesh::reduce: " + std::string(to_string(op)) + " of " +
                          std::string(to_string(dtype)) +
                          " has no meaning, complex numbers have no order; reduce with sum, avg or "
                          "product");
  }
  if (!has_arithmetic(dtype)) {
    throw UnsupportedError(
        "shardmesh::reduce: " + std::string(to_string(dtype)) +
        (is_packed(dtype) ? " holds several numbers in an element" : " is a block scale") +
        ", without arithmetic; reduce the scaled values in another dtype");
  }
  if (terms == 0) {
    throw InvalidArgument("shardmesh::reduce: no sources; pass one or more");
  }
}

namespace detail {

/// Element `i` of packed elements, which need no alignment.
template <class E>
[[nodiscard]] inline E element_at(std::byte const* elements, index_t i) noexcept {
  E element;
  std::memcpy(&element, elements + i * index_t{sizeof(E)}, sizeof(E));
  return element;
}

/// Elements that are reduced at a time.
inline constexpr index_t reduce_block = 512;

/// Calls f(i) for 0 <= i < length. That of a whole block is a loop of known length, which compilers turn into
/// vector instructions at -O2 as well.
template <class F>
inline void for_block(index_t length, F const& f) {
  if (length == reduce_block) {
    for (index_t i = 0; i < reduce_block; ++i) {
      f(i);
    }
  } else {
    for (index_t i = 0; i < length; ++i) {
      f(i);
    }
  }
}

/// total[i] = op of total[i] and element i of `source`.
template <class E>
inline void combine_block(ReduceOp op,
                          Accumulator<E>* total,
                          std::byte const* source,
                          index_t length) {
  if (op == ReduceOp::sum || op == ReduceOp::avg) {  // the others are rare
    for_block(length, [&](index_t i) {
      total[i] = combine<E>(ReduceOp::sum, total[i], widen(element_at<E>(source, i)));
    });
  } else {
    for_block(length, [&](index_t i) {
      total[i] = combine<E>(op, total[i], widen(element_at<E>(source, i)));
    });
  }
}

/// Reduces block by block, one source after the other within a block: the inner loops are plain
/// loops over arrays, and every element still combines its terms in the order of the sources.
template <class E>
void reduce_blocks(ReduceOp op,
                   void* destination,
                   std::span<void const* const> sources,
                   index_t count) {
  Accumulator<E> total[reduce_block];
  int const divisor = divisor_of(op, static_cast<int>(sources.size()));
  for (index_t first = 0; first < count; first += reduce_block) {
    index_t const length = detail::smaller(reduce_block, count - first);
    index_t const offset = first * index_t{sizeof(E)};
    auto const block_of = [offset](void const* source) {
      return static_cast<std::byte const*>(source) + offset;
    };
    std::byte const* const front = block_of(sources[0]);
    for_block(length, [&](index_t i) { total[i] = widen(element_at<E>(front, i)); });
    for (std::size_t j = 1; j < sources.size(); ++j) {
      combine_block<E>(op, total, block_of(sources[j]), length);
    }
    auto* const result = static_cast<std::byte*>(destination) + offset;
    auto const put = [&](index_t i, int by) {
      E const element = narrow<E>(total[i], by);
      std::memcpy(result + i * index_t{sizeof(E)}, &element, sizeof(E));
    };
    if (divisor == 1) {
      for_block(length, [&](index_t i) { put(i, 1); });
    } else {
      for_block(length, [&](index_t i) { put(i, divisor); });
    }
  }
}

}  // namespace detail

/// destination[i] = op over sources[j][i], j ascending: the same bits on every run and every
/// engine. Small floats are combined in float and rounded once. Integers wrap, and their average is
/// the wrapped sum divided, truncating towards zero. bool: sum, avg and max are "or", product and
/// min are "and". A NaN makes min and max NaN; every NaN result is the plain quiet one.
/// @param destination `count` elements; may be the first source, must not overlap another.
/// @param sources each `count` contiguous elements, of any alignment.
/// @tparam Count any integer: a template, so that the loops for all types are compiled only where
///         they are called.
/// @throws InvalidArgument, UnsupportedError as `check_reducible`.
template <std::integral Count>
void host_reduce(DType dtype,
                 ReduceOp op,
                 void* destination,
                 std::span<void const* const> sources,
                 Count count) {
  check_reducible(dtype, op, sources.size());
  visit_dtype(dtype, [&]<class T>(std::type_identity<T>) {
    if constexpr (has_arithmetic(dtype_of<T>)) {
      using Element = typename detail::ReduceElement<T>::type;
      detail::reduce_blocks<Element>(op, destination, sources, static_cast<index_t>(count));
    }
  });
}

}  // namespace v0
}  // namespace shardmesh
