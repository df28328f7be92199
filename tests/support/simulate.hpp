// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Runs plans without ranks or memory: every rank's local tensor is a vector of integers.

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/plan/plan.hpp>

#include "layouts.hpp"

namespace test {

using Local = std::vector<index_t>;
using Locals = std::vector<Local>;  // by rank

/// The term that the contributor number `term` adds to element `element`.
inline index_t term_of(index_t element, index_t term) {
  return (element + 1) * (term + 3) % 1009;
}

/// What each rank holds under `layout` of a tensor that had the partial placements of `source`: the
/// sum of the terms of all contributors that agree with it where both layouts are partial.
inline Locals locals_of(Layout const& layout, Layout const& source) {
  Locals locals;
  Shape contributors;
  std::vector<std::size_t> dims;
  for (std::size_t m = 0; m < source.placements().size(); ++m) {
    if (source.placements()[m].is_partial()) {
      contributors.push_back(source.mesh()[m]);
      dims.push_back(m);
    }
  }
  for (index_t rank = 0; rank < layout.ranks(); ++rank) {
    auto const coordinate = shardmesh::unravel(rank, layout.mesh());
    Local local = elements_by_pieces(layout, coordinate);
    for (index_t& value : local) {
      index_t sum = 0;
      for (index_t term = 0; term < shardmesh::volume(contributors); ++term) {
        auto const at = shardmesh::unravel(term, contributors);
        bool mine = true;
        for (std::size_t i = 0; i < dims.size(); ++i) {
          bool const kept = layout.placements()[dims[i]].is_partial();
          mine = mine && (!kept || coordinate[dims[i]] == at[i]);
        }
        sum += mine ? term_of(value, term) : 0;
      }
      value = sum;
    }
    locals.push_back(local);
  }
  return locals;
}

/// The same by rank, for a layout on given ranks; nothing on the others.
inline Locals locals_of(shardmesh::Holding const& holding, Layout const& source) {
  Locals const by_position = locals_of(holding.layout(), source);
  Locals locals(static_cast<std::size_t>(holding.rank_limit()));
  for (std::size_t p = 0; p < by_position.size(); ++p) {
    locals[static_cast<std::size_t>(holding.rank_at(static_cast<index_t>(p)))] = by_position[p];
  }
  return locals;
}

/// Copies a box between row-major tensors.
inline void copy_box(Local const& source,
                     shardmesh::LocalPlace const& from,
                     Local& target,
                     shardmesh::LocalPlace const& to,
                     Shape const& extent) {
  for (index_t i = 0; i < shardmesh::volume(extent); ++i) {
    Shape const at = shardmesh::unravel(i, extent);
    auto const s = shardmesh::ravel(shardmesh::sum(from.offset, at), from.shape);
    auto const t = shardmesh::ravel(shardmesh::sum(to.offset, at), to.shape);
    target.at(static_cast<std::size_t>(t)) = source.at(static_cast<std::size_t>(s));
  }
}

/// Runs one exchange for all ranks. Fails (returns an empty list) if a send has no equal receive.
inline Locals run_step(shardmesh::Plan const& plan, std::size_t step, Locals const& before) {
  auto const ranks = static_cast<std::size_t>(plan.stages[step + 1].rank_limit());
  std::vector<shardmesh::RankStep> steps;
  for (std::size_t rank = 0; rank < std::max(ranks, before.size()); ++rank) {
    steps.push_back(plan.rank_step(step, static_cast<int>(rank)));
  }
  Locals after(ranks);
  std::vector<Local> staging(ranks);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    after[rank].assign(static_cast<std::size_t>(shardmesh::volume(steps[rank].target_shape)), -7);
    staging[rank].assign(static_cast<std::size_t>(steps[rank].staging), -9);
  }
  auto const deliver = [&](shardmesh::Transfer const& one, std::size_t from, std::size_t to) {
    if (one.slot < 0) {
      copy_box(before[from], one.source, after[to], one.target, one.box.extent);
    } else {
      Local slot(static_cast<std::size_t>(one.box.volume()));
      copy_box(before[from], one.source, slot, {Shape(one.box.extent.size(), 0), one.box.extent},
               one.box.extent);
      std::copy(slot.begin(), slot.end(), staging[to].begin() + one.slot);
    }
  };
  for (std::size_t rank = 0; rank < steps.size(); ++rank) {
    for (auto const& one : steps[rank].locals) {
      deliver(one, rank, rank);
    }
    for (std::size_t peer = 0; peer < steps.size(); ++peer) {
      // The pair must agree on what travels, in order; compare all but who is called the peer.
      std::vector<shardmesh::Transfer> sent;
      std::vector<shardmesh::Transfer> received;
      for (auto one : steps[rank].sends) {
        if (one.peer == static_cast<int>(peer)) {
          one.peer = 0;
          sent.push_back(one);
        }
      }
      for (auto one : steps[peer].receives) {
        if (one.peer == static_cast<int>(rank)) {
          one.peer = 0;
          received.push_back(one);
        }
      }
      if (sent != received) {
        return {};
      }
      for (auto const& one : sent) {
        deliver(one, rank, peer);
      }
    }
  }
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    for (auto const& one : steps[rank].reductions) {
      Local sums(static_cast<std::size_t>(one.box.volume()), 0);
      for (index_t term = 0; term < one.terms; ++term) {
        for (std::size_t i = 0; i < sums.size(); ++i) {
          sums[i] += staging[rank].at(static_cast<std::size_t>(one.slot) +
                                      static_cast<std::size_t>(term) * sums.size() + i);
        }
      }
      copy_box(sums, {Shape(one.box.extent.size(), 0), one.box.extent}, after[rank], one.target,
               one.box.extent);
    }
  }
  return after;
}

/// Runs a whole plan.
inline Locals run_plan(shardmesh::Plan const& plan, Locals locals) {
  for (std::size_t step = 0; step < plan.steps(); ++step) {
    locals = run_step(plan, step, locals);
  }
  return locals;
}

}  // namespace test
