// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>

#include <shardmesh/layout/placement.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// May these partial placements stand in one tensor? One operation, or sum with avg, which commute.
[[nodiscard]] constexpr bool partials_mix(PlacementList const& placements) {
  auto const additive = [](ReduceOp op) { return op == ReduceOp::sum || op == ReduceOp::avg; };
  for (std::size_t a = 0; a < placements.size(); ++a) {
    for (std::size_t b = a + 1; b < placements.size(); ++b) {
      if (placements[a].is_partial() && placements[b].is_partial() &&
          placements[a].op != placements[b].op &&
          !(additive(placements[a].op) && additive(placements[b].op))) {
        return false;
      }
    }
  }
  return true;
}

/// May a tensor go from one placement to the other? A partial target is legal only where the source
/// has the same one: a sum cannot be taken apart again.
[[nodiscard]] constexpr bool conversion_is_legal(Placement const& from, Placement const& to) {
  return !to.is_partial() || from == to;
}

/// As above for whole lists of equal length.
[[nodiscard]] constexpr bool conversion_is_legal(PlacementList const& from,
                                                 PlacementList const& to) {
  for (std::size_t m = 0; m < to.size(); ++m) {
    if (!conversion_is_legal(from[m], to[m])) {
      return false;
    }
  }
  return true;
}

}  // namespace detail

/// Placements with tensor dimensions counted from the front.
/// @throws InvalidArgument if the number of placements is not the mesh rank, a tensor dimension is
///         out of range, a 0-d tensor is sharded, a split factor is below 1, or partial operations
///         do not mix.
[[nodiscard]] constexpr PlacementList normalised(PlacementList placements,
                                                 std::size_t tensor_rank,
                                                 std::size_t mesh_rank) {
  if (placements.size() != mesh_rank) {
    throw InvalidArgument("shardmesh::Layout: " + std::to_string(placements.size()) +
                          " placements " + to_string(placements) + " for a mesh with " +
                          std::to_string(mesh_rank) +
                          " dimensions; give one placement per mesh dimension");
  }
  for (std::size_t m = 0; m < placements.size(); ++m) {
    Placement& placement = placements[m];
    if (!placement.is_shard()) {
      continue;
    }
    int const rank = static_cast<int>(tensor_rank);
    if (placement.dim < -rank || placement.dim >= rank) {
      throw InvalidArgument("shardmesh::Layout: " + to_string(placement) + " on mesh dimension " +
                            std::to_string(m) + " is out of range for a tensor with " +
                            std::to_string(tensor_rank) +
                            (tensor_rank == 0 ? " dimensions; a 0-d tensor can only be replicated"
                                              : " dimensions; use a dimension below the rank"));
    }
    if (placement.split_factor < 1) {
      throw InvalidArgument("shardmesh::Layout: " + to_string(placement) + " on mesh dimension " +
                            std::to_string(m) + ": the split factor must be at least 1");
    }
    placement.dim += placement.dim < 0 ? rank : 0;
    if (placement.split_factor == 1) {
      placement.kind = PlacementKind::shard;
    }
  }
  if (!detail::partials_mix(placements)) {
    throw InvalidArgument("shardmesh::Placements: partial placements of one tensor must use one "
                          "operation (sum and avg may be mixed), got " +
                          to_string(placements));
  }
  return placements;
}

}  // namespace v0
}  // namespace shardmesh
