// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/layout/layout.hpp>
#include <shardmesh/plan/transfer.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Do two ranks differ only along mesh dimensions that cut?
[[nodiscard]] constexpr bool in_one_line(Layout const& layout,
                                         Coordinate const& a,
                                         Coordinate const& b) {
  for (std::size_t m = 0; m < a.size(); ++m) {
    bool cuts = false;
    for (Cut const& one : layout.order()) {
      cuts = cuts || static_cast<std::size_t>(one.mesh_dim) == m;
    }
    if (!cuts && a[m] != b[m]) {
      return false;
    }
  }
  return true;
}

constexpr void require_no_partial(Layout const& layout) {
  if (layout.has_partial()) {
    throw InvalidArgument("shardmesh: a partial tensor has no whole yet (" + to_string(layout) +
                          "); reduce it first, by redistributing it to Shard or Replicate");
  }
}

/// The box of a piece in the local tensor of its rank, and in the whole tensor.
[[nodiscard]] constexpr Transfer piece_transfer(
    Layout const& layout, Piece const& piece, index_t holder, index_t peer, bool to_whole) {
  LocalPlace const local{piece.local, layout.local_shape(unravel(holder, layout.mesh()))};
  LocalPlace const whole{piece.box.offset, layout.shape()};
  Transfer result;
  result.peer = static_cast<int>(peer);
  result.box = piece.box;
  result.source = to_whole ? local : whole;
  result.target = to_whole ? whole : local;
  return result;
}

}  // namespace detail

/// What `rank` does to bring a tensor together on `root`: the ranks in the root's own line send what
/// they hold, the root receives, replicas in other lines do nothing.
/// @throws InvalidArgument if the tensor is partial.
/// @complexity O(number of ranks) at the root, O(1) elsewhere; no communication.
[[nodiscard]] constexpr RankStep gather_step(Layout const& layout, int root, int rank) {
  detail::require_no_partial(layout);
  RankStep step;
  Coordinate const at_root = unravel(root, layout.mesh());
  Coordinate const mine = unravel(rank, layout.mesh());
  step.source_shape = layout.local_shape(mine);
  step.target_shape = rank == root ? layout.shape() : Shape{0};
  index_t const first = rank == root ? 0 : rank;
  index_t const last = rank == root ? layout.ranks() : rank + 1;
  for (index_t holder = first; holder < last; ++holder) {
    Coordinate const coordinate = unravel(holder, layout.mesh());
    if (detail::in_one_line(layout, coordinate, at_root)) {
      for (Piece const& piece : layout.pieces(coordinate)) {
        auto& list = rank != root ? step.sends : holder == root ? step.locals : step.receives;
        list.push_back(
            detail::piece_transfer(layout, piece, holder, rank == root ? holder : root, true));
      }
    }
  }
  return step;
}

/// What `rank` does to spread a whole tensor that `root` has: every rank gets its part from the root.
/// @throws InvalidArgument if the tensor is partial.
/// @complexity O(number of ranks) at the root, O(1) elsewhere; no communication.
[[nodiscard]] constexpr RankStep scatter_step(Layout const& layout, int root, int rank) {
  detail::require_no_partial(layout);
  RankStep step;
  step.source_shape = rank == root ? layout.shape() : Shape{0};
  step.target_shape = layout.local_shape(unravel(rank, layout.mesh()));
  index_t const first = rank == root ? 0 : rank;
  index_t const last = rank == root ? layout.ranks() : rank + 1;
  for (index_t holder = first; holder < last; ++holder) {
    for (Piece const& piece : layout.pieces(unravel(holder, layout.mesh()))) {
      auto& list = rank != root ? step.receives : holder == root ? step.locals : step.sends;
      list.push_back(
          detail::piece_transfer(layout, piece, holder, rank == root ? holder : root, false));
    }
  }
  return step;
}

}  // namespace v0
}  // namespace shardmesh
