// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Random strided boxes and the plainest possible copy of one, for the tests of copies.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include <shardmesh/memory/space.hpp>
#include <shardmesh/memory/strided_copy.hpp>

namespace boxes {

namespace sm = shardmesh;

/// One side of a copy: strides in bytes and the bytes that they span.
struct Side {
  sm::Shape strides;
  std::size_t bytes = 0;
};

struct Case {
  sm::Shape extent;
  std::size_t element_bytes = 1;
  Side source;
  Side destination;

  [[nodiscard]] sm::StridedCopy copy(void const* from, void* to) const {
    return {from, to, extent, source.strides, destination.strides, element_bytes};
  }
};

class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) {}

  [[nodiscard]] sm::index_t below(sm::index_t n) {
    return static_cast<sm::index_t>(random_() % static_cast<std::uint64_t>(n));
  }

  [[nodiscard]] std::vector<std::byte> bytes(std::size_t count) {
    std::vector<std::byte> result(count);
    for (std::byte& byte : result) {
      byte = static_cast<std::byte>(random_());
    }
    return result;
  }

  /// A box of random rank and extents (some 0, many 1); dimensions in any order and padded on each
  /// side, but often dense, so that there is something to merge.
  [[nodiscard]] Case box() {
    constexpr sm::index_t sizes[] = {1, 2, 3, 4, 8, 12, 16};
    Case result;
    result.element_bytes = static_cast<std::size_t>(sizes[below(7)]);
    auto const rank = static_cast<std::size_t>(below(7));
    for (std::size_t d = 0; d < rank; ++d) {
      result.extent.push_back(below(20) == 0 ? 0 : 1 + below(4));
    }
    result.source = side(result.extent, result.element_bytes);
    result.destination = side(result.extent, result.element_bytes);
    if (rank > 0 && below(5) == 0) {  // repeat the source along a dimension
      result.source.strides[static_cast<std::size_t>(below(sm::index_t(rank)))] = 0;
    }
    return result;
  }

 private:
  [[nodiscard]] Side side(sm::Shape const& extent, std::size_t element_bytes) {
    std::vector<std::size_t> order(extent.size());
    std::iota(order.rbegin(), order.rend(), std::size_t{0});  // innermost first
    if (below(3) == 0) {
      std::shuffle(order.begin(), order.end(), random_);
    }
    Side result{sm::Shape(extent.size(), 0), 0};
    auto stride = static_cast<sm::index_t>(element_bytes);
    for (std::size_t const d : order) {
      result.strides[d] = stride;
      stride *= std::max<sm::index_t>(extent[d], 1);
      stride += below(3) == 0 ? below(3) * static_cast<sm::index_t>(element_bytes) : 0;
    }
    result.bytes = static_cast<std::size_t>(stride);
    return result;
  }

  std::mt19937_64 random_;
};

/// Element by element.
inline void naive_copy(sm::StridedCopy const& copy) {
  for (sm::index_t i = 0; i < sm::volume(copy.extent); ++i) {
    sm::Coordinate const at = sm::unravel(i, copy.extent);
    sm::index_t from = 0;
    sm::index_t to = 0;
    for (std::size_t d = 0; d < at.size(); ++d) {
      from += at[d] * copy.source_strides[d];
      to += at[d] * copy.destination_strides[d];
    }
    std::memcpy(static_cast<std::byte*>(copy.destination) + to,
                static_cast<std::byte const*>(copy.source) + from, copy.element_bytes);
  }
}

}  // namespace boxes
