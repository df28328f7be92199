// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>

#include <shardmesh/layout/layout.hpp>

namespace shardmesh {
inline namespace v0 {

/// Does every rank hold the same under two layouts, so that one can be had from the other by another
/// name alone? Mesh dimensions of one rank neither cut a tensor nor add terms to it, whatever
/// placement they have. Equality of layouts asks for more: the same placements.
///
/// True only where that follows from the placements; layouts that agree by chance of the extents
/// (two ranks, one row) count as different.
[[nodiscard]] constexpr bool same_parts(Layout const& a, Layout const& b) {
  if (!(a.shape() == b.shape()) || !(a.mesh() == b.mesh())) {
    return false;
  }
  auto const idle = [&a](std::size_t mesh_dim) { return a.mesh()[mesh_dim] == 1; };
  for (std::size_t m = 0; m < a.mesh().size(); ++m) {
    Placement const& one = a.placements()[m];
    Placement const& other = b.placements()[m];
    bool const terms = one.is_partial() || other.is_partial();
    if (!idle(m) && terms && !(one == other)) {
      return false;
    }
  }
  ShardOrder cuts_of_a;
  ShardOrder cuts_of_b;
  for (Cut const& cut : a.order()) {
    if (!idle(static_cast<std::size_t>(cut.mesh_dim))) {
      cuts_of_a.push_back(cut);
    }
  }
  for (Cut const& cut : b.order()) {
    if (!idle(static_cast<std::size_t>(cut.mesh_dim))) {
      cuts_of_b.push_back(cut);
    }
  }
  return cuts_of_a == cuts_of_b;
}

}  // namespace v0
}  // namespace shardmesh
