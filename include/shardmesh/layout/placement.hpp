// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include <shardmesh/core/index.hpp>
#include <shardmesh/core/inline_vector.hpp>
#include <shardmesh/core/reduce_op.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

/// Every rank along the mesh dimension holds all of it.
struct Replicate {
  [[nodiscard]] friend constexpr bool operator==(Replicate, Replicate) = default;
};

/// Tensor dimension `Dim` is cut by the chunk rule: of k ranks, rank r holds
/// [min(n, r c), min(n, (r + 1) c)) with c = ceil(n / k). `Shard<>{d}` (or `Shard{d}`) names the
/// dimension at run time; a negative `d` counts from the last dimension.
template <int Dim = dynamic>
struct Shard {
  static_assert(Dim >= 0 || Dim == dynamic,
                "shardmesh::Shard: a static dimension must not be negative; write Shard<Dim> with "
                "0 <= Dim < tensor rank, or Shard{-1} for a run-time one");
  [[nodiscard]] friend constexpr bool operator==(Shard, Shard) = default;
};

/// `Shard` of a dimension that is known at run time; negative ones count from the last.
template <>
struct Shard<dynamic> {
  int dim = 0;
  constexpr Shard() = default;
  constexpr explicit Shard(int tensor_dim) noexcept : dim(tensor_dim) {}
  [[nodiscard]] friend constexpr bool operator==(Shard, Shard) = default;
};

/// `Shard{1}` is a run-time one.
Shard(int) -> Shard<dynamic>;

/// PyTorch's `_StridedShard`: the dimension is chunked into `SplitFactor` pieces, each piece is
/// chunked over the ranks, and a rank's sub-pieces are concatenated. It arises when FSDP wraps a
/// tensor that another mesh dimension, further right, has cut before.
template <int Dim, int SplitFactor>
struct StridedShard {
  static_assert(Dim >= 0, "shardmesh::StridedShard: Dim must not be negative");
  static_assert(SplitFactor >= 1, "shardmesh::StridedShard: SplitFactor must be at least 1");
  [[nodiscard]] friend constexpr bool operator==(StridedShard, StridedShard) = default;
};

/// Every rank along the mesh dimension holds a contribution; the value is their reduction by `Op`.
template <ReduceOp Op = ReduceOp::sum>
struct Partial {
  [[nodiscard]] friend constexpr bool operator==(Partial, Partial) = default;
};

/// What a mesh dimension does to a tensor.
enum class PlacementKind : std::uint8_t { replicate, shard, strided_shard, partial };

/// A placement as a value: what the placement types above become at run time.
struct Placement {
  PlacementKind kind = PlacementKind::replicate;
  ReduceOp op = ReduceOp::sum;  ///< of a partial placement
  int dim = 0;                  ///< tensor dimension of a shard; negative counts from the last
  index_t split_factor = 1;     ///< of a strided shard

  constexpr Placement() = default;
  constexpr Placement(Replicate) noexcept {}
  template <int Dim>
  constexpr Placement(Shard<Dim> shard) noexcept : kind(PlacementKind::shard) {
    if constexpr (Dim == dynamic) {
      dim = shard.dim;
    } else {
      dim = Dim;
    }
  }
  template <int Dim, int SplitFactor>
  constexpr Placement(StridedShard<Dim, SplitFactor>) noexcept
      : kind(PlacementKind::strided_shard), dim(Dim), split_factor(SplitFactor) {}
  template <ReduceOp Op>
  constexpr Placement(Partial<Op>) noexcept : kind(PlacementKind::partial), op(Op) {}

  /// A strided shard whose numbers are known at run time.
  [[nodiscard]] static constexpr Placement strided(int dim, index_t split_factor) noexcept {
    Placement placement(Shard<dynamic>{dim});
    placement.kind = PlacementKind::strided_shard;
    placement.split_factor = split_factor;
    return placement;
  }

  /// A partial placement whose operation is known at run time.
  [[nodiscard]] static constexpr Placement partial(ReduceOp op) noexcept {
    Placement placement;
    placement.kind = PlacementKind::partial;
    placement.op = op;
    return placement;
  }

  [[nodiscard]] constexpr bool is_replicate() const noexcept {
    return kind == PlacementKind::replicate;
  }
  /// True for plain and strided shards.
  [[nodiscard]] constexpr bool is_shard() const noexcept {
    return kind == PlacementKind::shard || kind == PlacementKind::strided_shard;
  }
  [[nodiscard]] constexpr bool is_partial() const noexcept {
    return kind == PlacementKind::partial;
  }

  [[nodiscard]] friend constexpr bool operator==(Placement const&, Placement const&) = default;
};

/// Placements known at run time, one per mesh dimension.
using PlacementList = InlineVector<Placement, max_rank>;

/// "Replicate", "Shard(0)", "StridedShard(0, split_factor=2)", "Partial(sum)".
[[nodiscard]] inline std::string to_string(Placement const& placement) {
  switch (placement.kind) {
    case PlacementKind::replicate:
      return "Replicate";
    case PlacementKind::shard:
      return detail::concat("Shard(", std::to_string(placement.dim), ')');
    case PlacementKind::strided_shard:
      return detail::concat("StridedShard(", std::to_string(placement.dim),
                            ", split_factor=", std::to_string(placement.split_factor), ')');
    case PlacementKind::partial:
      break;
  }
  return detail::concat("Partial(", to_string(placement.op), ')');
}

/// "(Replicate, Shard(0))".
[[nodiscard]] inline std::string to_string(PlacementList const& placements) {
  std::string text = "(";
  for (std::size_t m = 0; m < placements.size(); ++m) {
    text += detail::concat(m == 0 ? "" : ", ", to_string(placements[m]));
  }
  return text + ")";
}

}  // namespace v0
}  // namespace shardmesh
