// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/format/dcp_metadata.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// How many pairs of chunks may still be compared. Regular grids need few; what lies as badly as it can needs
/// the square of its number.
struct ChunkWork {
  std::uint64_t left = 500'000'000;

  /// For all tensors of a description of so many bytes: less than a second for each MiB.
  [[nodiscard]] static constexpr ChunkWork of(std::uint64_t bytes) noexcept {
    return {50'000'000 + 128 * bytes};
  }
};

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
                                                 std::vector<std::uint32_t> const& order,
                                                 std::size_t rank) {
  std::size_t best = 0;
  std::size_t most = 0;
  for (std::size_t d = 0; d < rank; ++d) {
    std::vector<index_t> starts;
    starts.reserve(order.size());
    for (std::uint32_t const i : order) {
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
/// @param work  what may be done, and is taken from.
/// @throws UnsupportedError if tens of thousands of chunks lie so irregularly that telling takes
///         too long.
[[nodiscard]] inline std::string chunk_fault(TensorMetadata const& tensor, ChunkWork& work) {
  std::vector<std::uint32_t> order;  // of the chunks with elements
  order.reserve(tensor.chunks.size());
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
      order.push_back(static_cast<std::uint32_t>(i));
    }
  }
  std::size_t const dim = detail::sweep_dimension(tensor.chunks, order, rank);
  if (rank > 0) {
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return tensor.chunks[a].offsets[dim] < tensor.chunks[b].offsets[dim];
    });
  }
  std::vector<std::uint32_t> open;
  for (std::uint32_t const i : order) {
    ChunkMetadata const& chunk = tensor.chunks[i];
    if (rank > 0) {
      std::erase_if(open, [&](std::uint32_t j) {
        return tensor.chunks[j].offsets[dim] + tensor.chunks[j].sizes[dim] <= chunk.offsets[dim];
      });
    }
    if (open.size() + 1 > work.left) {
      throw UnsupportedError("shardmesh::chunk_fault: " + std::to_string(order.size()) +
                             " chunks lie too irregularly to be checked for overlap");
    }
    work.left -= open.size() + 1;
    for (std::uint32_t const j : open) {
      if (detail::boxes_overlap(tensor.chunks[j], chunk)) {
        return "the chunks at " + to_string(tensor.chunks[j].offsets) + " and " +
               to_string(chunk.offsets) + " overlap";
      }
    }
    open.push_back(i);
  }
  return {};
}
[[nodiscard]] inline std::string chunk_fault(TensorMetadata const& tensor) {
  ChunkWork work;
  return chunk_fault(tensor, work);
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
