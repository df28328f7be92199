// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>

#include <shardmesh/core/shape.hpp>
#include <shardmesh/layout/placement.hpp>

namespace shardmesh {
inline namespace v0 {

/// One cut of a tensor: mesh dimension `mesh_dim` cuts tensor dimension `tensor_dim`.
/// A split factor above 1 is a strided cut whose order cannot be told otherwise.
struct Cut {
  int tensor_dim = 0;
  int mesh_dim = 0;
  index_t split_factor = 1;  ///< pieces that are cut one by one, see `StridedShard`

  [[nodiscard]] friend constexpr bool operator==(Cut const&, Cut const&) = default;
};

/// The cuts of a tensor in the order in which they are made: what a layout stores as the truth.
/// Sorted by tensor dimension; within one, the first cut is made first. Each mesh dimension stands
/// in it at most once; mesh dimensions that replicate or hold partial values do not appear.
using ShardOrder = InlineVector<Cut, max_rank>;

namespace detail {

/// Sorted by tensor dimension, keeping the order of cuts within each.
[[nodiscard]] constexpr ShardOrder canonical(ShardOrder order) {
  for (std::size_t i = 1; i < order.size(); ++i) {
    for (std::size_t j = i; j > 0 && order[j].tensor_dim < order[j - 1].tensor_dim; --j) {
      Cut const swapped = order[j];
      order[j] = order[j - 1];
      order[j - 1] = swapped;
    }
  }
  return order;
}

}  // namespace detail

/// PyTorch's left-to-right reading: mesh dimension 0 cuts first; a strided shard keeps its split
/// factor.
/// @pre `placements` is normalised.
[[nodiscard]] constexpr ShardOrder left_to_right(PlacementList const& placements) {
  ShardOrder order;
  for (std::size_t m = 0; m < placements.size(); ++m) {
    if (placements[m].is_shard()) {
      order.push_back({placements[m].dim, static_cast<int>(m), placements[m].split_factor});
    }
  }
  return detail::canonical(order);
}

/// The physical order behind PyTorch's FSDP2 + TP placements: a strided shard on tensor dimension d
/// is cut after the shards of d further right whose sizes multiply to its split factor.
/// For even sizes this is the same layout as `left_to_right`; for some uneven ones it is not, and
/// this is what FSDP2 stores (https://github.com/pytorch/pytorch/issues/168134).
/// @pre `placements` is normalised for a mesh of shape `mesh`.
/// @throws InvalidArgument if no such order exists.
[[nodiscard]] constexpr ShardOrder physical_order(PlacementList const& placements,
                                                  Shape const& mesh) {
  ShardOrder order;
  for (std::size_t m = placements.size(); m-- > 0;) {
    Placement const& placement = placements[m];
    if (!placement.is_shard()) {
      continue;
    }
    // Built from the right: `order` holds the cuts of the mesh dimensions right of m, in order.
    // The new cut follows the first of them, as many as its split factor asks for.
    std::size_t at = 0;
    index_t product = 1;
    for (std::size_t i = 0; i < order.size() && product < placement.split_factor; ++i) {
      if (order[i].tensor_dim == placement.dim) {
        product *= mesh[static_cast<std::size_t>(order[i].mesh_dim)];
        at = i + 1;
      }
    }
    if (product != placement.split_factor) {
      throw InvalidArgument("shardmesh::physical_order: no order of cuts gives " +
                            to_string(placements) + " on mesh " + to_string(mesh) +
                            "; the split factor must be the product of the sizes of shards of the "
                            "same dimension further right");
    }
    ShardOrder next(order.begin(), order.begin() + at);
    next.push_back({placement.dim, static_cast<int>(m), 1});
    for (std::size_t i = at; i < order.size(); ++i) {
      next.push_back(order[i]);
    }
    order = next;
  }
  return detail::canonical(order);
}

/// PyTorch's placements for an order of cuts: a cut made after cuts of mesh dimensions further right
/// becomes a strided shard with the product of their sizes as split factor.
/// `other` gives the placements of the mesh dimensions that do not cut.
[[nodiscard]] constexpr PlacementList to_placements(ShardOrder const& order,
                                                    Shape const& mesh,
                                                    PlacementList other) {
  for (std::size_t i = 0; i < order.size(); ++i) {
    index_t factor = order[i].split_factor;
    for (std::size_t j = 0; j < i; ++j) {
      if (order[j].tensor_dim == order[i].tensor_dim && order[j].mesh_dim > order[i].mesh_dim) {
        factor *= mesh[static_cast<std::size_t>(order[j].mesh_dim)];
      }
    }
    other[static_cast<std::size_t>(order[i].mesh_dim)] =
        factor == 1 ? Placement(Shard<dynamic>{order[i].tensor_dim})
                    : Placement::strided(order[i].tensor_dim, factor);
  }
  return other;
}

}  // namespace v0
}  // namespace shardmesh
