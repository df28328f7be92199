// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>

#include <shardmesh/core/index.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/memory/space.hpp>

namespace shardmesh {
inline namespace v0 {

/// A strided copy brought to its simplest form: rows of contiguous bytes, and the dimensions over
/// which rows repeat, outermost first. No dimension of extent 1, no two that could be one.
struct CollapsedCopy {
  std::byte const* source = nullptr;
  std::byte* destination = nullptr;
  std::size_t row_bytes = 0;  ///< 0: nothing to copy
  Shape extent;
  Shape source_strides;
  Shape destination_strides;
};

/// Drops dimensions of one element and merges neighbours that lie behind one another on both sides.
/// @pre extent and both strides name the same number of dimensions.
/// @throws ShapeError if the number of elements does not fit 63 bits.
[[nodiscard]] inline CollapsedCopy collapse(StridedCopy const& copy) {
  CollapsedCopy result;
  result.source = static_cast<std::byte const*>(copy.source);
  result.destination = static_cast<std::byte*>(copy.destination);
  if (volume(copy.extent) == 0) {
    return result;
  }
  for (std::size_t d = 0; d < copy.extent.size(); ++d) {
    index_t const extent = copy.extent[d];
    if (extent == 1) {
      continue;
    }
    bool const merges = !result.extent.empty() &&
                        result.source_strides.back() == copy.source_strides[d] * extent &&
                        result.destination_strides.back() == copy.destination_strides[d] * extent;
    if (merges) {
      result.extent.back() *= extent;
      result.source_strides.back() = copy.source_strides[d];
      result.destination_strides.back() = copy.destination_strides[d];
    } else {
      result.extent.push_back(extent);
      result.source_strides.push_back(copy.source_strides[d]);
      result.destination_strides.push_back(copy.destination_strides[d]);
    }
  }
  result.row_bytes = copy.element_bytes;
  auto const element = static_cast<index_t>(copy.element_bytes);
  if (!result.extent.empty() && result.source_strides.back() == element &&
      result.destination_strides.back() == element) {
    result.row_bytes *= static_cast<std::size_t>(result.extent.back());
    result.extent.pop_back();
    result.source_strides.pop_back();
    result.destination_strides.pop_back();
  }
  return result;
}

/// Calls `f(source, destination)` for the first byte of every sub-box that is left when the outer
/// `outer` dimensions are fixed; with outer == extent.size(), for every row.
template <class F>
void for_each_outer(CollapsedCopy const& copy, std::size_t outer, F f) {
  Shape const counts(copy.extent.begin(), copy.extent.begin() + outer);
  Shape at(outer, 0);
  std::byte const* source = copy.source;
  std::byte* destination = copy.destination;
  for (index_t left = volume(counts); left > 0; --left) {
    f(source, destination);
    for (std::size_t d = outer; d-- > 0;) {
      source += copy.source_strides[d];
      destination += copy.destination_strides[d];
      if (++at[d] < counts[d]) {
        break;
      }
      source -= copy.source_strides[d] * counts[d];
      destination -= copy.destination_strides[d] * counts[d];
      at[d] = 0;
    }
  }
}

/// How many of the innermost dimensions of `copy` one call of a copy engine moves, besides the row
/// itself: 0 (a row), 1 (a pitched 2-D copy) or 2 (a pitched 3-D copy).
///
/// An engine takes pitches of at least a row and at most 2^31 - 1 bytes, and a slice must be a
/// whole number of pitches behind the one before it. Repeated rows (stride 0) and reversed ones do
/// not qualify.
/// @pre copy.row_bytes > 0.
[[nodiscard]] constexpr std::size_t engine_dims(CollapsedCopy const& copy) noexcept {
  constexpr index_t largest_pitch = 0x7fffffff;
  auto const row = static_cast<index_t>(copy.row_bytes);
  auto const is_pitch = [row](index_t stride) { return stride >= row && stride <= largest_pitch; };
  std::size_t const rank = copy.extent.size();
  if (rank == 0 || !is_pitch(copy.source_strides[rank - 1]) ||
      !is_pitch(copy.destination_strides[rank - 1])) {
    return 0;
  }
  if (rank == 1) {
    return 1;
  }
  index_t const rows = copy.extent[rank - 1];
  auto const is_slice = [rows](index_t slice, index_t pitch) {
    return slice % pitch == 0 && slice / pitch >= rows;
  };
  return is_slice(copy.source_strides[rank - 2], copy.source_strides[rank - 1]) &&
                 is_slice(copy.destination_strides[rank - 2], copy.destination_strides[rank - 1])
             ? 2
             : 1;
}

}  // namespace v0
}  // namespace shardmesh
