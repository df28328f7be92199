// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/plan/plan.hpp>

namespace shardmesh {
inline namespace v0 {

// What follows is a template where it goes through whole plans, so that it is compiled only where it is called; nobody
// gives another type.

/// What a plan costs, over all ranks; bytes unless said.
struct PlanCost {
  index_t exchanges = 0;      ///< collective steps
  index_t messages = 0;       ///< pairs of ranks that talk, summed over the steps
  index_t moved = 0;          ///< bytes that cross between ranks
  index_t most_sent = 0;      ///< by one rank
  index_t most_received = 0;  ///< by one rank
  index_t most_staging = 0;   ///< temporary bytes on one rank, at once
  index_t local = 0;          ///< bytes copied within ranks
  /// Bytes that some rank has to receive whatever the plan: what it lacks, and one number for each element
  /// that it has to add others' terms to.
  index_t least_received = 0;

  [[nodiscard]] friend constexpr bool operator==(PlanCost const&, PlanCost const&) = default;
};

namespace detail {

/// @see PlanCost::least_received
template <class Step = RankStep>
[[nodiscard]] constexpr index_t least_received(Holding const& from, Holding const& to) {
  bool adds = false;
  bool const same_mesh = from.same_mesh(to);
  for (std::size_t m = 0; m < from.layout().mesh().size(); ++m) {
    Placement const& placement = from.layout().placements()[m];
    bool const kept = same_mesh && to.layout().placements()[m] == placement;
    adds = adds || (placement.is_partial() && !kept && from.layout().mesh()[m] > 1);
  }
  index_t most = 0;
  for (index_t position = 0; position < to.layout().ranks(); ++position) {
    Step const step = moves(from, to, to.rank_at(position));
    index_t lacks = volume(step.target_shape);
    for (Transfer const& one : step.locals) {
      lacks -= adds ? 0 : one.box.volume();
    }
    most = larger(most, lacks);
  }
  return most;
}

}  // namespace detail

/// Bytes that one rank sends another, over all exchanges of a plan.
struct PairTraffic {
  int from = 0;
  int to = 0;
  index_t bytes = 0;

  [[nodiscard]] friend constexpr bool operator==(PairTraffic const&, PairTraffic const&) = default;
};

/// Who sends how much to whom, by sender, then by receiver; pairs that do not talk are left out.
/// @complexity that of all ranks' moves: for explaining, not for the hot path.
template <class Pair = PairTraffic>
[[nodiscard]] constexpr std::vector<Pair> traffic_of(Plan const& plan, std::size_t element_bytes) {
  std::vector<Pair> pairs;
  for (std::size_t step = 0; step < plan.steps(); ++step) {
    for (index_t rank = 0; rank < plan.stages[step].rank_limit(); ++rank) {
      for (Transfer const& one : plan.rank_step(step, static_cast<int>(rank)).sends) {
        pairs.push_back({static_cast<int>(rank), one.peer,
                         one.box.volume() * static_cast<index_t>(element_bytes)});
      }
    }
  }
  std::sort(pairs.begin(), pairs.end(), [](Pair const& a, Pair const& b) {
    return a.from != b.from ? a.from < b.from : a.to < b.to;
  });
  std::vector<Pair> sums;
  for (Pair const& one : pairs) {
    if (!sums.empty() && sums.back().from == one.from && sums.back().to == one.to) {
      sums.back().bytes += one.bytes;
    } else {
      sums.push_back(one);
    }
  }
  return sums;
}

/// Adds up a plan for elements of `element_bytes`.
/// @complexity O(ranks squared): meant for explaining and testing, not for the hot path.
template <class Cost = PlanCost>
[[nodiscard]] constexpr Cost cost_of(Plan const& plan, std::size_t element_bytes) {
  auto const bytes = static_cast<index_t>(element_bytes);
  index_t const ranks = detail::larger(plan.from().rank_limit(), plan.to().rank_limit());
  Cost cost;
  std::vector<index_t> sent(static_cast<std::size_t>(ranks), 0);
  std::vector<index_t> received(static_cast<std::size_t>(ranks), 0);
  for (std::size_t step = 0; step < plan.steps(); ++step) {
    for (index_t rank = 0; rank < ranks; ++rank) {
      RankStep const part = plan.rank_step(step, static_cast<int>(rank));
      int last_peer = -1;
      for (Transfer const& one : part.sends) {
        index_t const size = one.box.volume() * bytes;
        cost.messages += one.peer == last_peer ? 0 : 1;
        last_peer = one.peer;
        cost.moved += size;
        sent[static_cast<std::size_t>(rank)] += size;
        received[static_cast<std::size_t>(one.peer)] += size;
      }
      for (Transfer const& one : part.locals) {
        cost.local += one.box.volume() * bytes;
      }
      cost.most_staging = detail::larger(cost.most_staging, part.staging * bytes);
    }
    ++cost.exchanges;
  }
  for (std::size_t rank = 0; rank < sent.size(); ++rank) {
    cost.most_sent = detail::larger(cost.most_sent, sent[rank]);
    cost.most_received = detail::larger(cost.most_received, received[rank]);
  }
  cost.least_received = detail::least_received(plan.from(), plan.to()) * bytes;
  return cost;
}

namespace detail {

/// "(Shard(0)) on mesh (2)", with its ranks if they are not 0 1 ...: its shape was said before.
[[nodiscard]] inline std::string words_of_target(Holding const& to) {
  std::string text = to_string(to.layout().placements());
  text += " on mesh " + to_string(to.layout().mesh());
  return text + ranks_in_words(to);
}

}  // namespace detail

/// A plan in words: its stages, what each rank sends to whom, and the cost. For people.
/// @param most_ranks  so many are listed; the others are counted.
template <class Text = std::string>
[[nodiscard]] Text explain(Plan const& plan, DType dtype, index_t most_ranks = 64) {
  Text text;
  for (std::size_t step = 0; step < plan.steps(); ++step) {
    Holding const& from = plan.stages[step];
    Holding const& to = plan.stages[step + 1];
    text += detail::concat("exchange ", std::to_string(step + 1), ": ", to_string(from), " -> ",
                           detail::words_of_target(to), '\n');
    index_t const ranks = detail::larger(from.rank_limit(), to.rank_limit());
    index_t const listed = detail::smaller(ranks, most_ranks);
    for (index_t rank = 0; rank < listed; ++rank) {
      RankStep const part = plan.rank_step(step, static_cast<int>(rank));
      for (Transfer const& one : part.locals) {
        text +=
            detail::concat("  rank ", std::to_string(rank), " keeps ", to_string(one.box), '\n');
      }
      for (Transfer const& one : part.sends) {
        text +=
            detail::concat("  rank ", std::to_string(rank), " -> rank ", std::to_string(one.peer),
                           ' ', to_string(one.box), one.slot < 0 ? "\n" : " (a term)\n");
      }
      for (Reduction const& one : part.reductions) {
        text +=
            detail::concat("  rank ", std::to_string(rank), " reduces ", to_string(one.box), " by ",
                           to_string(part.op), " over ", std::to_string(one.terms), '\n');
      }
    }
    text +=
        listed < ranks ? detail::concat("  and ", std::to_string(ranks - listed), " ranks\n") : "";
  }
  PlanCost const cost = cost_of(plan, size_of(dtype));
  return detail::concat(text, "moved ", std::to_string(cost.moved), " bytes in ",
                        std::to_string(cost.messages), " messages, at most ",
                        std::to_string(cost.most_received), " into one rank (lower bound ",
                        std::to_string(cost.least_received), "); staging ",
                        std::to_string(cost.most_staging), " bytes\n");
}

}  // namespace v0
}  // namespace shardmesh
