// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <vector>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/plan/transfer.hpp>

namespace shardmesh {
inline namespace v0 {

/// Cuts a box along its first dimensions into boxes of at most `most` elements, in row-major order.
/// Each is as long as it may be; together they hold every element once. Rows stay whole while one
/// fits, so that a tile of contiguous memory is contiguous.
/// @pre most >= 1.
[[nodiscard]] constexpr std::vector<Box> tiles(Box const& box, index_t most) {
  std::vector<Box> result;
  if (box.empty()) {
    return result;
  }
  if (box.extent.empty()) {
    return {box};
  }
  std::size_t cut = box.extent.size() - 1;  // is cut; those before it are taken index by index
  index_t inner = 1;                        // elements of one index of it
  while (cut > 0 && inner * box.extent[cut] <= most) {
    inner *= box.extent[cut--];
  }
  index_t const step = detail::larger<index_t>(1, most / inner);
  Shape const outer(box.extent.begin(), box.extent.begin() + cut);
  for (index_t linear = 0; linear < volume(outer); ++linear) {
    Box tile = box;
    Shape const at = unravel(linear, outer);
    for (std::size_t d = 0; d < cut; ++d) {
      tile.offset[d] += at[d];
      tile.extent[d] = 1;
    }
    for (index_t first = 0; first < box.extent[cut]; first += step) {
      tile.offset[cut] = box.offset[cut] + first;
      tile.extent[cut] = detail::smaller(step, box.extent[cut] - first);
      result.push_back(tile);
    }
  }
  return result;
}

/// A transfer that is not a term of a reduction as transfers of at most `most` elements each.
/// @pre most >= 1 and transfer.slot < 0.
[[nodiscard]] constexpr std::vector<Transfer> tiles(Transfer const& transfer, index_t most) {
  std::vector<Transfer> result;
  for (Box const& box : tiles(transfer.box, most)) {
    Shape const inside = difference(box.offset, transfer.box.offset);
    Transfer part = transfer;
    part.box = box;
    part.source.offset = sum(transfer.source.offset, inside);
    part.target.offset = sum(transfer.target.offset, inside);
    result.push_back(part);
  }
  return result;
}

}  // namespace v0
}  // namespace shardmesh
