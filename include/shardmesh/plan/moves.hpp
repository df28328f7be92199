// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <shardmesh/plan/detail/shares.hpp>
#include <shardmesh/plan/holding.hpp>
#include <shardmesh/plan/transfer.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// How a mesh dimension of the source takes part in an exchange.
enum class SourceRole {
  cuts,         ///< its ranks hold different elements: all may have to send
  replicates,   ///< its ranks hold the same: the one in the receiver's own line sends
  contributes,  ///< its ranks hold terms of a reduction: all send
  keeps,        ///< partial before and after: only the receiver's own line takes part
};

/// Makes one rank's part of an exchange between two holdings.
///
/// Which rank sends a box to a receiver is a closed formula, so each rank finds its own part without
/// talking: take the receiver's own coordinate in the source mesh, replace the coordinates of the
/// dimensions that cut by those of the box, and let every coordinate of a contributing dimension
/// send a term. Replicas share the load: each line of replicas serves its own line of receivers, and
/// receivers outside the source mesh are dealt out to the lines.
class MovePlanner {
 public:
  constexpr MovePlanner(Holding const& from, Holding const& to)
      : from_(from), to_(to), same_mesh_(from.same_mesh(to)) {
    Layout const& source = from.layout();
    for (std::size_t m = 0; m < source.mesh().size(); ++m) {
      Placement const& placement = source.placements()[m];
      SourceRole role = SourceRole::replicates;
      if (placement.is_shard()) {
        role = SourceRole::cuts;
      } else if (placement.is_partial()) {
        bool const kept = same_mesh_ && to.layout().placements()[m] == placement;
        role = kept ? SourceRole::keeps : SourceRole::contributes;
        if (!kept) {
          op_ = placement.op;
          terms_ *= source.mesh()[m];
        }
      }
      roles_.push_back(role);
    }
  }

  [[nodiscard]] constexpr RankStep step(int rank) const {
    RankStep result;
    result.op = op_;
    result.source_shape = result.target_shape = Shape{0};
    if (auto const position = from_.position_of(rank)) {
      add_sends(rank, *position, result);
    }
    if (auto const position = to_.position_of(rank)) {
      add_receives(rank, *position, result);
    }
    return result;
  }

 private:
  [[nodiscard]] constexpr Shape const& mesh() const { return from_.layout().mesh(); }
  [[nodiscard]] constexpr bool is_own_line(std::size_t m) const {
    return roles_[m] == SourceRole::replicates || roles_[m] == SourceRole::keeps;
  }

  /// The coordinate in the source mesh of the receiver at a position of the target's.
  [[nodiscard]] constexpr Coordinate line_of(index_t position) const {
    index_t own = position;
    if (!same_mesh_) {
      own = from_.position_of(to_.rank_at(position)).value_or(position % from_.layout().ranks());
    }
    return unravel(own, mesh());
  }

  /// Calls f for every coordinate that differs from `base` only in contributing dimensions, with its
  /// number among them.
  template <class F>
  constexpr void for_each_contributor(Coordinate base, F f) const {
    for (index_t term = 0; term < terms_; ++term) {
      index_t rest = term;
      for (std::size_t m = roles_.size(); m-- > 0;) {
        if (roles_[m] == SourceRole::contributes) {
          base[m] = rest % mesh()[m];
          rest /= mesh()[m];
        }
      }
      f(base, term);
    }
  }

  /// The place of a rank among the contributors of its boxes.
  [[nodiscard]] constexpr index_t term_of(Coordinate const& coordinate) const {
    index_t term = 0;
    for (std::size_t m = 0; m < roles_.size(); ++m) {
      if (roles_[m] == SourceRole::contributes) {
        term = term * mesh()[m] + coordinate[m];
      }
    }
    return term;
  }

  /// First element in the receiver's staging area of the terms of a box. Boxes divide the local tensor
  /// as a grid; their terms stand there in the row-major order of the grid.
  [[nodiscard]] constexpr index_t slot_of(Shape const& extent, LocalPlace const& target) const {
    index_t before = 0;
    index_t outer = 1;  // extents of the box in the dimensions passed
    for (std::size_t d = 0; d < extent.size(); ++d) {
      index_t inner = 1;
      for (std::size_t e = d + 1; e < extent.size(); ++e) {
        inner *= target.shape[e];
      }
      before += outer * target.offset[d] * inner;
      outer *= extent[d];
    }
    return terms_ * before;
  }

  constexpr void add_receives(int rank, index_t position, RankStep& result) const {
    Coordinate const line = line_of(position);
    SharedBoxes const boxes(to_.layout(), unravel(position, to_.layout().mesh()), from_.layout(),
                            Fixed(mesh().size(), -1));
    result.target_shape = boxes.local_shape();
    result.staging = terms_ > 1 ? terms_ * volume(result.target_shape) : 0;
    for (index_t i = 0; i < boxes.count(); ++i) {
      SharedBoxes::Common const common = boxes.box(i);
      Transfer one;
      one.box = common.box;
      one.source = {common.there, common.there_shape};
      one.target = {common.here, boxes.local_shape()};
      index_t const slot = slot_of(common.box.extent, one.target);
      Coordinate holder = line;
      boxes.locate(i, holder);
      for_each_contributor(holder, [&](Coordinate const& sender, index_t term) {
        one.peer = from_.rank_at(ravel(sender, mesh()));
        one.slot = terms_ > 1 ? slot + term * one.box.volume() : -1;
        (one.peer == rank ? result.locals : result.receives).push_back(one);
      });
      if (terms_ > 1) {
        result.reductions.push_back({one.box, one.target, slot, terms_});
      }
    }
  }

  /// Calls f for the positions of all receivers that have coordinates `base` along the dimensions of
  /// the target mesh that cut, and are served by the rank at `mine`.
  template <class F>
  constexpr void for_each_receiver(Coordinate const& mine, Coordinate base, F f) const {
    Shape const& target = to_.layout().mesh();
    Shape choices = target;  // by dimension; 1 where there is none
    for (Cut const& cut : to_.layout().order()) {
      choices[static_cast<std::size_t>(cut.mesh_dim)] = 1;
    }
    for (std::size_t m = 0; m < target.size(); ++m) {
      if (same_mesh_ && is_own_line(m)) {
        choices[m] = 1;
        base[m] = mine[m];  // where it cuts, the box is that of this coordinate already
      }
    }
    index_t const count = volume(choices);
    for (index_t i = 0; i < count; ++i) {
      Coordinate const chosen = unravel(i, choices);
      Coordinate at = base;
      for (std::size_t m = 0; m < target.size(); ++m) {
        at[m] = choices[m] > 1 ? chosen[m] : at[m];
      }
      index_t const position = ravel(at, target);
      if (same_mesh_ || serves(mine, line_of(position))) {
        f(position);
      }
    }
  }

  /// Is a rank in the line that serves a receiver?
  [[nodiscard]] constexpr bool serves(Coordinate const& rank, Coordinate const& line) const {
    for (std::size_t m = 0; m < roles_.size(); ++m) {
      if (is_own_line(m) && rank[m] != line[m]) {
        return false;
      }
    }
    return true;
  }

  constexpr void add_sends(int rank, index_t position, RankStep& result) const {
    Coordinate const mine = unravel(position, mesh());
    Layout const& target = to_.layout();
    Fixed fixed(target.mesh().size(), -1);
    for (std::size_t m = 0; same_mesh_ && m < fixed.size(); ++m) {
      fixed[m] = is_own_line(m) ? mine[m] : -1;
    }
    SharedBoxes const boxes(from_.layout(), mine, target, fixed);
    result.source_shape = boxes.local_shape();

    struct Send {
      index_t turn;  // in ring order no receiver is hit by all at once
      index_t box;
      int peer;
    };
    std::vector<Send> sends;
    index_t const ranks = target.ranks();
    for (index_t i = 0; i < boxes.count(); ++i) {
      Coordinate at(target.mesh().size(), 0);
      boxes.locate(i, at);
      for_each_receiver(mine, at, [&](index_t receiver) {
        int const peer = to_.rank_at(receiver);
        if (peer != rank) {
          sends.push_back({((receiver - position - 1) % ranks + ranks) % ranks, i, peer});
        }
      });
    }
    std::sort(sends.begin(), sends.end(), [](Send const& a, Send const& b) {
      return a.turn != b.turn ? a.turn < b.turn : a.box < b.box;
    });
    result.sends.reserve(sends.size());
    index_t const term = term_of(mine);
    for (Send const& send : sends) {
      SharedBoxes::Common const common = boxes.box(send.box);
      Transfer& one = result.sends.emplace_back();
      one.peer = send.peer;
      one.box = common.box;
      one.source = {common.here, boxes.local_shape()};
      one.target = {common.there, common.there_shape};
      if (terms_ > 1) {
        one.slot = slot_of(common.box.extent, one.target) + term * common.box.volume();
      }
    }
  }

  Holding const& from_;
  Holding const& to_;
  bool same_mesh_;
  InlineVector<SourceRole, max_rank> roles_;
  ReduceOp op_ = ReduceOp::sum;
  index_t terms_ = 1;
};

}  // namespace detail

/// What `rank` does to bring a tensor from one holding to another in one exchange. The one planner:
/// whatever moves between ranks is made of it.
/// @param rank  in the communicator that both holdings number by; may belong to one, both or none.
/// @pre both layouts have the same global shape; partial placements of `to` stand in `from` as well,
///      on the same mesh.
/// @complexity that of the boxes the rank sends and receives, whatever the number of ranks; along tensor
///      dimensions with strided cuts, and from replicas to another mesh, that of the peers that
///      could be. No communication.
[[nodiscard]] constexpr RankStep moves(Holding const& from, Holding const& to, int rank) {
  return detail::MovePlanner(from, to).step(rank);
}

}  // namespace v0
}  // namespace shardmesh
