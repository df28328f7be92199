// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include <shardmesh/layout/layout.hpp>
#include <shardmesh/plan/holding.hpp>
#include <shardmesh/plan/moves.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Are both kinds of additive terms reduced on the way?
[[nodiscard]] constexpr bool mixes_sum_and_avg(Layout const& from, Layout const& to) {
  bool sum = false;
  bool avg = false;
  for (std::size_t m = 0; m < from.placements().size(); ++m) {
    Placement const& placement = from.placements()[m];
    if (placement.is_partial() && !(to.placements()[m] == placement)) {
      sum = sum || placement.op == ReduceOp::sum;
      avg = avg || placement.op == ReduceOp::avg;
    }
  }
  return sum && avg;
}

/// Between a partial source of more than two terms and a target that replicates them, a stop where
/// each contributor reduces its own part of the target's block: the two halves of an all-reduce.
/// Nothing where it does not pay (two terms, or no dimension long enough to cut).
[[nodiscard]] constexpr std::optional<Layout> reduce_scatter_stop(Layout const& from,
                                                                  Layout const& to) {
  if (from.shape().empty()) {
    return std::nullopt;
  }
  std::size_t widest = 0;
  for (std::size_t d = 1; d < from.shape().size(); ++d) {
    widest = from.shape()[d] > from.shape()[widest] ? d : widest;
  }
  ShardOrder order = to.order();
  index_t terms = 1;
  for (std::size_t m = 0; m < from.placements().size(); ++m) {
    if (from.placements()[m].is_partial() && to.placements()[m].is_replicate()) {
      terms *= from.mesh()[m];
      order.push_back({static_cast<int>(widest), static_cast<int>(m), 1});
    }
  }
  if (terms <= 2 || from.shape()[widest] < terms) {
    return std::nullopt;
  }
  return Layout::with_order(from.shape(), from.mesh(), order, to.placements());
}

}  // namespace detail

/// How a tensor gets from one holding to another: those it passes, first the source, last the
/// target; each pair of neighbours is one exchange. A pure value: every rank makes the same plan
/// from the same two holdings, prints it, compares it, or runs its own part of it.
struct Plan {
  std::vector<Holding> stages;

  [[nodiscard]] constexpr Holding const& from() const { return stages.front(); }
  [[nodiscard]] constexpr Holding const& to() const { return stages.back(); }
  [[nodiscard]] constexpr std::size_t steps() const { return stages.size() - 1; }

  /// What `rank` does in exchange `step`.
  [[nodiscard]] constexpr RankStep rank_step(std::size_t step, int rank) const {
    return moves(stages[step], stages[step + 1], rank);
  }

  [[nodiscard]] friend constexpr bool operator==(Plan const&, Plan const&) = default;
};

namespace detail {

/// The layouts that a tensor passes on its way to another on the same mesh, which is not among them.
constexpr void add_stops(Layout const& from, Layout const& to, std::vector<Layout>& stops) {
  stops.push_back(from);
  if (mixes_sum_and_avg(from, to)) {
    PlacementList averaged = from.placements();
    for (std::size_t m = 0; m < averaged.size(); ++m) {
      bool const reduce = averaged[m].is_partial() && averaged[m].op == ReduceOp::avg;
      averaged[m] = reduce && !to.placements()[m].is_partial() ? Placement{} : averaged[m];
    }
    stops.push_back(Layout::with_order(from.shape(), from.mesh(), from.order(), averaged));
  }
  if (auto const stop = reduce_scatter_stop(stops.back(), to)) {
    stops.push_back(*stop);
  }
}

}  // namespace detail

/// Plans how a tensor gets from one holding to another: a redistribution, a gather to a root, a transfer
/// between meshes. Layouts alone stand for holdings on the ranks 0, 1, ...
///
/// Without partial values one exchange always suffices, whatever the placements: every box goes
/// straight from a holder to its place. A partial source that becomes replicated over more than two
/// ranks goes through a reduce-scatter stop, which moves 2 (k - 1) / k of the bytes instead of
/// k - 1. Mixed sums and averages are reduced one kind after the other. On its way to another mesh
/// a partial source is reduced on its own first, each rank a part where that can be.
///
/// @throws ShapeError if the holdings are of tensors of different shapes.
/// @throws InvalidArgument if the target is partial where the source is not, with another operation, or
///         on another mesh.
[[nodiscard]] constexpr Plan make_plan(Holding const& source, Holding const& target) {
  Layout const& from = source.layout();
  Layout const& to = target.layout();
  if (!(from.shape() == to.shape())) {
    throw ShapeError("shardmesh::make_plan: the source has shape " + to_string(from.shape()) +
                     ", the target " + to_string(to.shape()) + "; they must be equal");
  }
  bool const same_mesh = source.same_mesh(target);
  if (!same_mesh && to.has_partial()) {
    throw InvalidArgument("shardmesh::make_plan: a tensor cannot become partial on another mesh (" +
                          to_string(source) + " to " + to_string(target) +
                          "); give it Shard or Replicate there");
  }
  if (same_mesh && !detail::conversion_is_legal(from.placements(), to.placements())) {
    throw InvalidArgument("shardmesh::redistribute: a Partial target placement is legal only where "
                          "the source has the same one; reduce to Shard or Replicate instead: " +
                          to_string(from.placements()) + " to " + to_string(to.placements()));
  }
  std::vector<Layout> stops;
  if (!from.has_partial()) {
    stops.push_back(from);
  } else if (same_mesh) {
    detail::add_stops(from, to, stops);
  } else {
    Layout const reduced = Layout::with_order(from.shape(), from.mesh(), from.order());
    detail::add_stops(from, reduced, stops);
    if (stops.back().has_partial()) {
      stops.push_back(reduced);
    }
  }
  Plan plan;
  for (Layout const& stop : stops) {
    plan.stages.push_back(source.with(stop));
  }
  plan.stages.push_back(target);
  return plan;
}
/// The same between layouts on the ranks 0, 1, ...
[[nodiscard]] constexpr Plan make_plan(Layout const& from, Layout const& to) {
  return make_plan(Holding(from), Holding(to));
}

}  // namespace v0
}  // namespace shardmesh
