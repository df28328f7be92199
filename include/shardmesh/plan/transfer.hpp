// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <vector>

#include <shardmesh/core/reduce_op.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {

/// A box in one rank's local tensor: its offset there, and the shape of that (row-major) tensor.
struct LocalPlace {
  Shape offset;
  Shape shape;

  [[nodiscard]] friend constexpr bool operator==(LocalPlace const&, LocalPlace const&) = default;
};

/// One box on its way from the source tensor of one rank to the target tensor of another.
struct Transfer {
  int peer = 0;       ///< the receiver (in `sends`), the sender (in `receives`)
  Box box;            ///< the global elements that move
  LocalPlace source;  ///< where the sender has them
  LocalPlace target;  ///< where the receiver wants them
  /// First element of the receiver's staging area that takes them, where they are one term of a
  /// reduction; -1 if they go straight to `target`.
  index_t slot = -1;

  [[nodiscard]] friend constexpr bool operator==(Transfer const&, Transfer const&) = default;
};

/// `terms` contributions to one box, each `box.volume()` contiguous elements, lie one behind the
/// other in the staging area from element `slot`, in ascending order of the contributing ranks.
struct Reduction {
  Box box;
  LocalPlace target;
  index_t slot = 0;
  index_t terms = 0;

  [[nodiscard]] friend constexpr bool operator==(Reduction const&, Reduction const&) = default;
};

/// What one rank does in one exchange: copy, send, receive, then reduce. Transfers between a pair
/// of ranks stand in the same order on both sides.
struct RankStep {
  Shape source_shape;  ///< local shape before
  Shape target_shape;  ///< local shape after
  std::vector<Transfer> locals;
  std::vector<Transfer> sends;
  std::vector<Transfer> receives;
  std::vector<Reduction> reductions;
  ReduceOp op = ReduceOp::sum;
  index_t staging = 0;  ///< elements of staging that the reductions need

  [[nodiscard]] friend constexpr bool operator==(RankStep const&, RankStep const&) = default;
};

}  // namespace v0
}  // namespace shardmesh
