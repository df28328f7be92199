// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/format/dcp_metadata.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

namespace detail {

[[nodiscard]] constexpr bool is_empty_box(Shape const& sizes) noexcept {
  return std::find(sizes.begin(), sizes.end(), 0) != sizes.end();
}

[[nodiscard]] inline bool boxes_overlap(ChunkMetadata const& a, ChunkMetadata const& b) noexcept {
  for (std::size_t d = 0; d < a.offsets.size(); ++d) {
    if (a.offsets[d] + a.sizes[d] <= b.offsets[d] || b.offsets[d] + b.sizes[d] <= a.offsets[d]) {
      return false;
    }
  }
  return true;
}

/// The dimension in which the chunks start at the most places: sweeping along it keeps few open.
[[nodiscard]] inline std::size_t sweep_dimension(std::vector<ChunkMetadata> const& chunks,
                                                 std::vector<std::size_t> const& order,
                                                 std::size_t rank) {
  std::size_t best = 0;
  std::size_t most = 0;
  for (std::size_t d = 0; d < rank; ++d) {
    std::vector<index_t> starts;
    starts.reserve(order.size());
    for (std::size_t const i : order) {
      starts.push_back(chunks[i].offsets[d]);
    }
    std::sort(starts.begin(), starts.end());
    auto const distinct =
        static_cast<std::size_t>(std::unique(starts.begin(), starts.end()) - starts.begin());
    if (distinct > most) {
      most = distinct;
      best = d;
    }
  }
  return best;
}

}  // namespace detail

/// What is wrong with the chunks of a tensor, in words; empty if nothing is: every chunk has the
/// tensor's rank and lies inside it, and no two chunks share an element. Says nothing of gaps.
/// @throws UnsupportedError if tens of thousands of chunks lie so irregularly that telling takes
///         too long.
[[nodiscard]] inline std::string chunk_fault(TensorMetadata const& tensor) {
  std::vector<std::size_t> order;  // of the chunks with elements
  std::size_t const rank = tensor.size.size();
  for (std::size_t i = 0; i < tensor.chunks.size(); ++i) {
    auto const& [offsets, sizes, storage] = tensor.chunks[i];
    bool inside = offsets.size() == rank && sizes.size() == rank;
    for (std::size_t d = 0; inside && d < rank; ++d) {
      inside = offsets[d] >= 0 && sizes[d] >= 0 && offsets[d] <= tensor.size[d] &&
               sizes[d] <= tensor.size[d] - offsets[d];
    }
    if (!inside) {
      return "the chunk at " + to_string(offsets) + " of shape " + to_string(sizes) +
             " does not lie inside " + to_string(tensor.size);
    }
    if (!detail::is_empty_box(sizes)) {
      order.push_back(i);
    }
  }
  std::size_t const dim = detail::sweep_dimension(tensor.chunks, order, rank);
  if (rank > 0) {
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return tensor.chunks[a].offsets[dim] < tensor.chunks[b].offsets[dim];
    });
  }
  std::vector<std::size_t> open;
  std::size_t work = 0;
  for (std::size_t const i : order) {
    ChunkMetadata const& chunk = tensor.chunks[i];
    if (rank > 0) {
      std::erase_if(open, [&](std::size_t j) {
        return tensor.chunks[j].offsets[dim] + tensor.chunks[j].sizes[dim] <= chunk.offsets[dim];
      });
    }
    for (std::size_t const j : open) {
      if (detail::boxes_overlap(tensor.chunks[j], chunk)) {
        return "the chunks at " + to_string(tensor.chunks[j].offsets) + " and " +
               to_string(chunk.offsets) + " overlap";
      }
    }
    work += open.size() + 1;
    if (work > 500'000'000) {
      throw UnsupportedError("shardmesh::chunk_fault: " + std::to_string(order.size()) +
                             " chunks lie too irregularly to be checked for overlap");
    }
    open.push_back(i);
  }
  return {};
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
