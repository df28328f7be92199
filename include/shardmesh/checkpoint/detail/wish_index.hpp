// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <shardmesh/checkpoint/load_plan.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Slabs of rows of about `most` bytes. In a row-major box each is one range of bytes.
[[nodiscard]] inline std::vector<Box> cut_rows(Box const& box,
                                               std::size_t element_bytes,
                                               std::uint64_t most) {
  std::uint64_t const bytes = static_cast<std::uint64_t>(box.volume()) * element_bytes;
  if (box.extent.empty() || bytes <= most) {
    return {box};
  }
  std::uint64_t const row = bytes / static_cast<std::uint64_t>(box.extent[0]);
  auto const step = static_cast<index_t>(std::max<std::uint64_t>(1, most / row));
  std::vector<Box> slabs;
  for (index_t at = 0; at < box.extent[0]; at += step) {
    Box slab = box;
    slab.offset[0] += at;
    slab.extent[0] = std::min(step, box.extent[0] - at);
    slabs.push_back(slab);
  }
  return slabs;
}

/// Bytes of `unit` that a rank wants, whose boxes are disjoint.
[[nodiscard]] inline std::uint64_t wanted_bytes(ReadUnit const& unit,
                                                std::vector<Box> const& boxes) {
  index_t elements = 0;
  for (Box const& box : boxes) {
    if (auto const common = intersect(box, unit.part)) {
      elements += common->volume();
    }
  }
  return static_cast<std::uint64_t>(elements) * size_of(unit.dtype);
}

/// The wishes of all ranks for one key, by rank; empty where there are none.
class WishIndex {
 public:
  WishIndex(std::vector<LoadWishes> const& wishes, std::size_t keys) : by_key_(keys) {
    for (std::size_t rank = 0; rank < wishes.size(); ++rank) {
      for (LoadWishes::Tensor const& tensor : wishes[rank].tensors) {
        by_key_[tensor.key].push_back({static_cast<int>(rank), &tensor.boxes});
      }
    }
  }

  struct Wish {
    int rank;
    std::vector<Box> const* boxes;
  };
  [[nodiscard]] std::vector<Wish> const& of(std::size_t key) const { return by_key_[key]; }
  /// @pre `rank` has a wish for the key.
  [[nodiscard]] std::vector<Box> const& boxes(std::size_t key, int rank) const {
    auto const& all = by_key_[key];
    return *std::lower_bound(all.begin(), all.end(), rank, [](Wish const& one, int wanted) {
              return one.rank < wanted;
            })->boxes;
  }

 private:
  std::vector<std::vector<Wish>> by_key_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
