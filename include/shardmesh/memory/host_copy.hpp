// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstring>

#include <shardmesh/core/index.hpp>
#include <shardmesh/memory/strided_copy.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Copies `count` rows of `row_bytes` bytes, each a stride behind the one before it.
inline void copy_rows(std::byte* to,
                      std::byte const* from,
                      std::size_t row_bytes,
                      index_t count,
                      index_t to_stride,
                      index_t from_stride) noexcept {
  auto const each = [&](auto copy_row) {
    for (index_t i = 0; i < count; ++i) {
      copy_row(to + i * to_stride, from + i * from_stride);
    }
  };
  // A copy of known size is a load and a store instead of a call: single elements are moved so.
  switch (row_bytes) {
    case 1:
      return each([](std::byte* t, std::byte const* f) { std::memcpy(t, f, 1); });
    case 2:
      return each([](std::byte* t, std::byte const* f) { std::memcpy(t, f, 2); });
    case 4:
      return each([](std::byte* t, std::byte const* f) { std::memcpy(t, f, 4); });
    case 8:
      return each([](std::byte* t, std::byte const* f) { std::memcpy(t, f, 8); });
    case 16:
      return each([](std::byte* t, std::byte const* f) { std::memcpy(t, f, 16); });
    default:
      return each([row_bytes](std::byte* t, std::byte const* f) { std::memcpy(t, f, row_bytes); });
  }
}

}  // namespace detail

/// Copies a collapsed box with the processor.
/// @pre source and destination do not overlap.
inline void host_copy(CollapsedCopy const& copy) {
  if (copy.row_bytes == 0) {
    return;
  }
  if (copy.extent.empty()) {
    std::memcpy(copy.destination, copy.source, copy.row_bytes);
    return;
  }
  for_each_outer(copy, copy.extent.size() - 1, [&copy](std::byte const* from, std::byte* to) {
    detail::copy_rows(to, from, copy.row_bytes, copy.extent.back(), copy.destination_strides.back(),
                      copy.source_strides.back());
  });
}

}  // namespace v0
}  // namespace shardmesh
