// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <vector>

#include <shardmesh/layout/layout.hpp>
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

/// Makes the steps of one exchange between two layouts.
///
/// Which rank sends a box to a receiver is a closed formula, so each rank finds its own part without
/// talking: take the receiver's own coordinate in the source mesh, replace the coordinates of the
/// dimensions that cut by those of the box, and let every coordinate of a contributing dimension
/// send a term. Replicas share the load: each line of replicas serves its own line of receivers.
class ExchangePlanner {
 public:
  constexpr ExchangePlanner(Layout const& from, Layout const& to) : from_(from), to_(to) {
    bool const same_mesh = from.mesh() == to.mesh();
    for (std::size_t m = 0; m < from.mesh().size(); ++m) {
      Placement const& placement = from.placements()[m];
      SourceRole role = SourceRole::replicates;
      if (placement.is_shard()) {
        role = SourceRole::cuts;
      } else if (placement.is_partial()) {
        bool const kept = same_mesh && to.placements()[m] == placement;
        role = kept ? SourceRole::keeps : SourceRole::contributes;
        if (!kept) {
          op_ = placement.op;
          terms_ *= from.mesh()[m];
        }
      }
      roles_.push_back(role);
    }
  }

  [[nodiscard]] constexpr RankStep step(int rank) const {
    RankStep result;
    result.op = op_;
    if (rank < from_.ranks()) {
      result.source_shape = from_.local_shape(unravel(rank, from_.mesh()));
      add_sends(rank, result);
    }
    if (rank < to_.ranks()) {
      result.target_shape = to_.local_shape(unravel(rank, to_.mesh()));
      add_receives(rank, result);
    }
    return result;
  }

 private:
  /// The receiver's own coordinate in the source mesh.
  [[nodiscard]] constexpr Coordinate line_of(index_t receiver) const {
    return unravel(receiver % from_.ranks(), from_.mesh());
  }

  /// Calls f for every coordinate that differs from `base` only in dimensions with this role.
  template <class F>
  constexpr void for_each_in(SourceRole role, Coordinate base, F f) const {
    index_t count = 1;
    for (std::size_t m = 0; m < roles_.size(); ++m) {
      count *= roles_[m] == role ? from_.mesh()[m] : 1;
    }
    for (index_t linear = 0; linear < count; ++linear) {
      index_t rest = linear;
      for (std::size_t m = roles_.size(); m-- > 0;) {
        if (roles_[m] == role) {
          base[m] = rest % from_.mesh()[m];
          rest /= from_.mesh()[m];
        }
      }
      f(base, linear);
    }
  }

  /// Calls f(target piece, source piece, common box, first element of its staging slot) for every
  /// box that `receiver` gets, in the order that both sides keep.
  template <class F>
  constexpr index_t for_each_box(index_t receiver, F f) const {
    index_t staging = 0;
    Coordinate const line = line_of(receiver);
    std::vector<Piece> const targets = to_.pieces(unravel(receiver, to_.mesh()));
    for (Piece const& target : targets) {
      for_each_in(SourceRole::cuts, line, [&](Coordinate const& holder, index_t) {
        std::vector<Piece> const sources = from_.pieces(holder);
        for (Piece const& source : sources) {
          if (auto const box = intersect(target.box, source.box)) {
            f(target, holder, source, *box, staging);
            staging += terms_ > 1 ? terms_ * box->volume() : 0;
          }
        }
      });
    }
    return staging;
  }

  [[nodiscard]] constexpr Transfer transfer(index_t peer,
                                            Box const& box,
                                            Piece const& source,
                                            Coordinate const& holder,
                                            Piece const& target,
                                            index_t receiver) const {
    Transfer result;
    result.peer = static_cast<int>(peer);
    result.box = box;
    result.source = {sum(source.local, difference(box.offset, source.box.offset)),
                     from_.local_shape(holder)};
    result.target = {sum(target.local, difference(box.offset, target.box.offset)),
                     to_.local_shape(unravel(receiver, to_.mesh()))};
    return result;
  }

  constexpr void add_receives(index_t rank, RankStep& result) const {
    result.staging = for_each_box(rank, [&](Piece const& target, Coordinate const& holder,
                                            Piece const& source, Box const& box, index_t slot) {
      for_each_in(SourceRole::contributes, holder, [&](Coordinate const& sender, index_t term) {
        index_t const peer = ravel(sender, from_.mesh());
        Transfer one = transfer(peer, box, source, holder, target, rank);
        if (terms_ > 1) {
          one.slot = slot + term * box.volume();
        }
        (peer == rank ? result.locals : result.receives).push_back(one);
        if (terms_ > 1 && term == 0) {
          result.reductions.push_back({box, one.target, slot, terms_});
        }
      });
    });
  }

  /// Is `rank` in the line that serves `receiver`?
  [[nodiscard]] constexpr bool serves(Coordinate const& rank, Coordinate const& line) const {
    for (std::size_t m = 0; m < roles_.size(); ++m) {
      bool const own_line = roles_[m] == SourceRole::replicates || roles_[m] == SourceRole::keeps;
      if (own_line && rank[m] != line[m]) {
        return false;
      }
    }
    return true;
  }

  constexpr void add_sends(index_t rank, RankStep& result) const {
    Coordinate const mine = unravel(rank, from_.mesh());
    std::vector<Piece> const pieces = from_.pieces(mine);
    for (index_t i = 1; i <= to_.ranks(); ++i) {  // ring order: no receiver is hit by all at once
      index_t const receiver = (rank + i) % to_.ranks();
      if (receiver == rank || !serves(mine, line_of(receiver))) {
        continue;
      }
      std::vector<Piece> const targets = to_.pieces(unravel(receiver, to_.mesh()));
      if (!any_meets(pieces, targets)) {
        continue;
      }
      index_t const term = term_of(mine);
      if (terms_ == 1) {
        for (Piece const& target : targets) {
          for (Piece const& source : pieces) {
            if (auto const box = intersect(target.box, source.box)) {
              result.sends.push_back(transfer(receiver, *box, source, mine, target, receiver));
            }
          }
        }
        continue;
      }
      for_each_box(receiver, [&](Piece const& target, Coordinate const& holder, Piece const& source,
                                 Box const& box, index_t slot) {
        if (same_cut(holder, mine)) {
          Transfer one = transfer(receiver, box, source, mine, target, receiver);
          one.slot = slot + term * box.volume();
          result.sends.push_back(one);
        }
      });
    }
  }

  [[nodiscard]] static constexpr bool any_meets(std::vector<Piece> const& a,
                                                std::vector<Piece> const& b) {
    for (Piece const& one : a) {
      for (Piece const& other : b) {
        if (intersect(one.box, other.box)) {
          return true;
        }
      }
    }
    return false;
  }

  [[nodiscard]] constexpr bool same_cut(Coordinate const& a, Coordinate const& b) const {
    for (std::size_t m = 0; m < roles_.size(); ++m) {
      if (roles_[m] == SourceRole::cuts && a[m] != b[m]) {
        return false;
      }
    }
    return true;
  }

  /// The place of a rank among the contributors of its boxes.
  [[nodiscard]] constexpr index_t term_of(Coordinate const& coordinate) const {
    index_t term = 0;
    for (std::size_t m = 0; m < roles_.size(); ++m) {
      if (roles_[m] == SourceRole::contributes) {
        term = term * from_.mesh()[m] + coordinate[m];
      }
    }
    return term;
  }

  Layout from_;
  Layout to_;
  InlineVector<SourceRole, max_rank> roles_;
  ReduceOp op_ = ReduceOp::sum;
  index_t terms_ = 1;
};

}  // namespace detail

/// What `rank` (row-major mesh number) does to take a tensor from one layout to the other in one
/// exchange. The meshes may differ; ranks are numbered in one communicator.
/// @pre both layouts have the same global shape; partial placements of `to` stand in `from` as well.
/// @complexity O(number of ranks), without communication.
[[nodiscard]] constexpr RankStep make_rank_step(Layout const& from, Layout const& to, int rank) {
  return detail::ExchangePlanner(from, to).step(rank);
}

}  // namespace v0
}  // namespace shardmesh
