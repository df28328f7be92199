// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/load_plan.hpp.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/load_plan.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

SHARDMESH_INLINE std::vector<Box> cut_rows(Box const& box,
                                           std::size_t element_bytes,
                                           std::uint64_t most) {
  std::uint64_t const bytes = static_cast<std::uint64_t>(box.volume()) * element_bytes;
  if (box.extent.empty() || bytes <= most) {
    return {box};
  }
  std::uint64_t const row = bytes / static_cast<std::uint64_t>(box.extent[0]);
  auto const step = static_cast<index_t>(std::max<std::uint64_t>(1, most / row));
  std::vector<Box> slabs;
  for (index_t at = 0; at < box.extent[0]; at += step) {
    Box slab = box;
    slab.offset[0] += at;
    slab.extent[0] = std::min(step, box.extent[0] - at);
    slabs.push_back(slab);
  }
  return slabs;
}

SHARDMESH_INLINE std::uint64_t wanted_bytes(ReadUnit const& unit, std::vector<Box> const& boxes) {
  index_t elements = 0;
  for (Box const& box : boxes) {
    if (auto const common = intersect(box, unit.part)) {
      elements += common->volume();
    }
  }
  return static_cast<std::uint64_t>(elements) * size_of(unit.dtype);
}

SHARDMESH_INLINE WishIndex::WishIndex(std::vector<LoadWishes> const& wishes, std::size_t keys)
    : by_key_(keys) {
  for (std::size_t rank = 0; rank < wishes.size(); ++rank) {
    for (LoadWishes::Tensor const& tensor : wishes[rank].tensors) {
      by_key_[tensor.key].push_back({static_cast<int>(rank), &tensor.boxes});
    }
  }
}

SHARDMESH_INLINE std::vector<Box> const& WishIndex::boxes(std::size_t key, int rank) const {
  auto const& all = by_key_[key];
  return *std::lower_bound(all.begin(), all.end(), rank, [](Wish const& one, int wanted) {
            return one.rank < wanted;
          })->boxes;
}

/// The largest units first, each goes to the rank that wants it and has the fewest bytes so far.
inline void choose_readers(std::vector<ReadUnit>& units, std::size_t ranks) {
  std::vector<std::size_t> order(units.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&units](std::size_t a, std::size_t b) {
    std::uint64_t const left = units[a].bytes();
    std::uint64_t const right = units[b].bytes();
    return left != right ? left > right : a < b;
  });
  std::vector<std::uint64_t> load(ranks, 0);
  for (std::size_t const i : order) {
    ReadUnit& unit = units[i];
    unit.reader =
        *std::min_element(unit.wanted_by.begin(), unit.wanted_by.end(), [&load](int a, int b) {
          return load[static_cast<std::size_t>(a)] < load[static_cast<std::size_t>(b)];
        });
    load[static_cast<std::size_t>(unit.reader)] += unit.bytes();
  }
}

/// Bytes that the ranks hold in one round.
class RoundBudget {
 public:
  RoundBudget(WishIndex const& wishes, std::size_t ranks, std::uint64_t most)
      : wishes_(wishes), held_(ranks, 0), most_(most) {}

  /// Adds a unit, unless it would take its reader or a receiver over the budget; to ranks that hold
  /// nothing yet, anything may be added.
  [[nodiscard]] bool add(ReadUnit const& unit) {
    more_.clear();
    std::uint64_t sent = 0;
    for (int const rank : unit.wanted_by) {
      if (rank != unit.reader) {
        more_.emplace_back(rank, wanted_bytes(unit, wishes_.boxes(unit.key, rank)));
        sent += more_.back().second;
      }
    }
    more_.emplace_back(unit.reader, unit.bytes() + sent);
    for (auto const& [rank, bytes] : more_) {
      std::uint64_t const held = held_[static_cast<std::size_t>(rank)];
      if (held > 0 && (held > most_ || bytes > most_ - held)) {
        return false;
      }
    }
    for (auto const& [rank, bytes] : more_) {
      held_[static_cast<std::size_t>(rank)] += bytes;
    }
    return true;
  }

 private:
  WishIndex const& wishes_;
  std::vector<std::uint64_t> held_;
  std::uint64_t most_;
  std::vector<std::pair<int, std::uint64_t>> more_;
};

/// Every reader goes through its units in order; in each round they take turns, until the next unit
/// of each would exceed the budget.
[[nodiscard]] inline std::vector<std::vector<std::size_t>> cut_rounds(
    std::vector<ReadUnit> const& units,
    WishIndex const& wishes,
    std::size_t ranks,
    std::uint64_t round_bytes) {
  std::vector<std::vector<std::size_t>> queues(ranks);
  for (std::size_t i = units.size(); i-- > 0;) {
    queues[static_cast<std::size_t>(units[i].reader)].push_back(i);
  }
  std::vector<std::vector<std::size_t>> rounds;
  for (std::size_t left = units.size(); left > 0;) {
    RoundBudget budget(wishes, ranks, round_bytes);
    std::vector<std::size_t>& round = rounds.emplace_back();
    std::vector<char> closed(ranks, 0);
    for (bool progress = true; progress;) {
      progress = false;
      for (std::size_t rank = 0; rank < ranks; ++rank) {
        auto& queue = queues[rank];
        if (queue.empty() || closed[rank] != 0) {
          continue;
        }
        if (!budget.add(units[queue.back()])) {
          closed[rank] = 1;
          continue;
        }
        round.push_back(queue.back());
        queue.pop_back();
        --left;
        progress = true;
      }
    }
  }
  return rounds;
}

}  // namespace detail

SHARDMESH_INLINE LoadPlan plan_load(std::vector<StoredTensor const*> const& stored,
                                    std::vector<LoadWishes> const& wishes,
                                    std::uint64_t unit_bytes,
                                    std::uint64_t round_bytes) {
  LoadPlan plan;
  std::vector<std::vector<int>> value_ranks(stored.size());
  for (std::size_t rank = 0; rank < wishes.size(); ++rank) {
    for (std::size_t const key : wishes[rank].values) {
      value_ranks[key].push_back(static_cast<int>(rank));
    }
  }
  detail::WishIndex const index(wishes, stored.size());
  for (std::size_t key = 0; key < stored.size(); ++key) {
    if (auto& ranks = value_ranks[key]; !ranks.empty()) {
      int const reader = ranks[plan.values.size() % ranks.size()];
      plan.values.push_back({key, reader, std::move(ranks)});
    }
    if (index.of(key).empty()) {
      continue;
    }
    StoredTensor const& tensor = *stored[key];
    for (std::size_t i = 0; i < tensor.boxes.size(); ++i) {
      auto const parts = unit_bytes > 0
                             ? detail::cut_rows(tensor.boxes[i], size_of(tensor.dtype), unit_bytes)
                             : std::vector<Box>{tensor.boxes[i]};
      for (Box const& part : parts) {
        ReadUnit unit{key, i, part, tensor.dtype, 0, {}};
        for (auto const& [rank, boxes] : index.of(key)) {
          if (std::any_of(boxes->begin(), boxes->end(),
                          [&part](Box const& box) { return intersect(box, part).has_value(); })) {
            unit.wanted_by.push_back(rank);
          }
        }
        if (!unit.wanted_by.empty()) {
          plan.units.push_back(std::move(unit));
        }
      }
    }
  }
  detail::choose_readers(plan.units, wishes.size());
  plan.rounds = detail::cut_rounds(plan.units, index, wishes.size(), round_bytes);
  return plan;
}

}  // namespace v0
}  // namespace shardmesh
