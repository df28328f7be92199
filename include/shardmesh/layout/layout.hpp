// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <shardmesh/core/fingerprint.hpp>
#include <shardmesh/layout/box.hpp>
#include <shardmesh/layout/chunk.hpp>
#include <shardmesh/layout/legality.hpp>
#include <shardmesh/layout/placement.hpp>
#include <shardmesh/layout/shard_order.hpp>

namespace shardmesh {
inline namespace v0 {

/// A part of a local tensor: the global elements `box` lie at `local` in the local tensor.
/// A rank has one piece, unless a strided cut left it several.
struct Piece {
  Box box;
  Shape local;

  [[nodiscard]] friend constexpr bool operator==(Piece const&, Piece const&) = default;
};

/// Who holds what of a tensor: its global shape, the shape of the mesh, a placement per mesh
/// dimension, and the order in which the mesh dimensions cut. A pure value; knows no rank's memory.
class Layout {
 public:
  constexpr Layout() = default;

  /// Cuts from left to right, as PyTorch reads placements.
  /// @throws InvalidArgument if mesh or placements are not legal for the shape (see `normalised`).
  constexpr Layout(Shape shape, Shape mesh, PlacementList const& placement_list)
      : shape_(shape),
        mesh_(mesh),
        placements_(normalised(placement_list, shape.size(), mesh.size())),
        order_(left_to_right(placements_)) {
    check_extents();
  }

  /// Cuts in an explicit order (FSDP2 + TP: `physical_order`). Mesh dimensions that do not cut are
  /// as in `other`: replicated, unless it says partial.
  /// @throws InvalidArgument if the order names a dimension that does not exist, or one twice.
  [[nodiscard]] static constexpr Layout with_order(Shape shape,
                                                   Shape mesh,
                                                   ShardOrder const& order,
                                                   PlacementList other = {}) {
    if (other.empty()) {
      other = PlacementList(mesh.size(), Placement{});
    }
    for (Placement& placement : other) {
      placement = placement.is_partial() ? placement : Placement{};
    }
    check_order(order, shape.size(), mesh.size());
    Layout layout(shape, mesh, to_placements(order, mesh, other));
    layout.order_ = detail::canonical(order);
    return layout;
  }

  [[nodiscard]] constexpr Shape const& shape() const noexcept { return shape_; }
  [[nodiscard]] constexpr Shape const& mesh() const noexcept { return mesh_; }
  [[nodiscard]] constexpr PlacementList const& placements() const noexcept { return placements_; }
  [[nodiscard]] constexpr ShardOrder const& order() const noexcept { return order_; }

  /// Number of ranks: product of the mesh shape.
  [[nodiscard]] constexpr index_t ranks() const { return volume(mesh_); }

  [[nodiscard]] constexpr bool has_partial() const {
    for (Placement const& placement : placements_) {
      if (placement.is_partial()) {
        return true;
      }
    }
    return false;
  }

  /// Does a cut leave ranks with several pieces?
  [[nodiscard]] constexpr bool is_strided() const {
    for (Cut const& one : order_) {
      if (one.split_factor > 1) {
        return true;
      }
    }
    return false;
  }

  /// The one box that the rank at `coordinate` holds; empty extents keep the place of the cut.
  /// @pre !is_strided().
  [[nodiscard]] constexpr Box local_box(Coordinate const& coordinate) const {
    Box box = Box::whole(shape_);
    for (Cut const& one : order_) {
      auto const d = static_cast<std::size_t>(one.tensor_dim);
      auto const m = static_cast<std::size_t>(one.mesh_dim);
      Interval const part = chunk(box.extent[d], mesh_[m], coordinate[m]);
      box.offset[d] += part.lo;
      box.extent[d] = part.size();
    }
    return box;
  }

  /// The non-empty pieces that the rank at `coordinate` holds, in row-major order of their place in
  /// the local tensor. A 0-d tensor has one piece.
  [[nodiscard]] constexpr std::vector<Piece> pieces(Coordinate const& coordinate) const {
    std::vector<Piece> pieces;
    if (!is_strided()) {
      if (Box const box = local_box(coordinate); !box.empty()) {
        pieces.push_back({box, Shape(shape_.size(), 0)});
      }
      return pieces;
    }
    pieces.push_back({Box::whole(shape_), Shape(shape_.size(), 0)});
    for (std::size_t d = 0; d < shape_.size(); ++d) {
      std::vector<Interval> const parts = ranges(d, coordinate);
      std::vector<Piece> next;
      for (Piece const& piece : pieces) {
        index_t position = 0;
        for (Interval const& range : parts) {
          Piece part = piece;
          part.box.offset[d] = range.lo;
          part.box.extent[d] = range.size();
          part.local[d] = position;
          position += range.size();
          next.push_back(part);
        }
      }
      pieces = next;
    }
    return pieces;
  }

  /// The stretches of tensor dimension `d` that the rank at `coordinate` holds, in ascending order; they
  /// stand one behind the other in its local tensor. None where it has no part.
  [[nodiscard]] constexpr std::vector<Interval> ranges(std::size_t d,
                                                       Coordinate const& coordinate) const {
    std::vector<Interval> parts;
    if (shape_[d] > 0) {
      parts.push_back({0, shape_[d]});
    }
    for (Cut const& one : order_) {
      if (static_cast<std::size_t>(one.tensor_dim) == d) {
        auto const m = static_cast<std::size_t>(one.mesh_dim);
        parts = detail::cut(parts, detail::total(parts), one.split_factor, mesh_[m], coordinate[m]);
      }
    }
    return parts;
  }

  /// Shape of the local tensor at `coordinate`; 0 in a sharded dimension of which it has no part.
  [[nodiscard]] constexpr Shape local_shape(Coordinate const& coordinate) const {
    if (!is_strided()) {
      return local_box(coordinate).extent;
    }
    Shape local = shape_;
    for (std::size_t d = 0; d < shape_.size(); ++d) {
      local[d] = detail::total(ranges(d, coordinate));
    }
    return local;
  }

  /// Global offset of the local tensor as PyTorch reports it: that of its first element, and the
  /// global extent in every sharded dimension of which the rank has no part, so that an empty shard
  /// never carries the offset of a real one.
  [[nodiscard]] constexpr Shape local_offset(Coordinate const& coordinate) const {
    Shape offset(shape_.size(), 0);
    for (Cut const& one : order_) {
      auto const d = static_cast<std::size_t>(one.tensor_dim);
      std::vector<Interval> const parts = ranges(d, coordinate);
      offset[d] = parts.empty() ? shape_[d] : parts.front().lo;
    }
    return offset;
  }

  /// The ranks (row-major mesh numbers, ascending) that hold at least one element of `box`.
  [[nodiscard]] constexpr std::vector<index_t> owners(Box const& box) const {
    std::vector<index_t> found;
    for (index_t rank = 0; rank < ranks(); ++rank) {
      for (Piece const& piece : pieces(unravel(rank, mesh_))) {
        if (intersect(piece.box, box)) {
          found.push_back(rank);
          break;
        }
      }
    }
    return found;
  }

  /// Equal shape, mesh, placements and order of cuts.
  [[nodiscard]] friend constexpr bool operator==(Layout const&, Layout const&) = default;

 private:
  constexpr void check_extents() const {
    for (index_t extent : mesh_) {
      if (extent < 1) {
        throw InvalidArgument("shardmesh::Layout: mesh " + to_string(mesh_) +
                              " has a dimension without ranks; every extent must be at least 1");
      }
    }
    for (index_t extent : shape_) {
      if (extent < 0) {
        throw ShapeError("shardmesh::Layout: shape " + to_string(shape_) +
                         " has a negative extent");
      }
    }
    static_cast<void>(volume(mesh_));
    static_cast<void>(volume(shape_));
  }

  static constexpr void check_order(ShardOrder const& order,
                                    std::size_t tensor_rank,
                                    std::size_t mesh_rank) {
    for (std::size_t i = 0; i < order.size(); ++i) {
      bool legal = order[i].tensor_dim >= 0 && order[i].mesh_dim >= 0 &&
                   static_cast<std::size_t>(order[i].tensor_dim) < tensor_rank &&
                   static_cast<std::size_t>(order[i].mesh_dim) < mesh_rank &&
                   order[i].split_factor >= 1;
      for (std::size_t j = 0; j < i; ++j) {
        legal = legal && order[j].mesh_dim != order[i].mesh_dim;
      }
      if (!legal) {
        throw InvalidArgument("shardmesh::Layout: cut " + std::to_string(i) +
                              " (tensor dimension " + std::to_string(order[i].tensor_dim) +
                              " by mesh dimension " + std::to_string(order[i].mesh_dim) +
                              ") is out of range or cuts by the same mesh dimension twice");
      }
    }
  }

  Shape shape_;
  Shape mesh_;
  PlacementList placements_;
  ShardOrder order_;
};

/// Stands for a layout: equal for equal layouts, on every rank.
[[nodiscard]] constexpr Fingerprint fingerprint(Layout const& layout) noexcept {
  Fingerprint result;
  for (Shape const* const shape : {&layout.shape(), &layout.mesh()}) {
    result.add(shape->size());
    for (index_t const extent : *shape) {
      result.add(static_cast<std::uint64_t>(extent));
    }
  }
  for (Placement const& one : layout.placements()) {
    result.add(static_cast<std::uint64_t>(one.kind) * 256U + static_cast<std::uint64_t>(one.op));
    result.add(static_cast<std::uint64_t>(one.dim));
    result.add(static_cast<std::uint64_t>(one.split_factor));
  }
  for (Cut const& one : layout.order()) {
    result.add(static_cast<std::uint64_t>(one.tensor_dim) * max_rank +
               static_cast<std::uint64_t>(one.mesh_dim));
    result.add(static_cast<std::uint64_t>(one.split_factor));
  }
  return result;
}

/// "(7, 5) on mesh (2, 2) as (Shard(0), Replicate)".
[[nodiscard]] inline std::string to_string(Layout const& layout) {
  return to_string(layout.shape()) + " on mesh " + to_string(layout.mesh()) + " as " +
         to_string(layout.placements());
}

}  // namespace v0
}  // namespace shardmesh

template <>
struct std::hash<shardmesh::Layout> {
  [[nodiscard]] std::size_t operator()(shardmesh::Layout const& layout) const noexcept {
    return static_cast<std::size_t>(shardmesh::fingerprint(layout).value());
  }
};
