// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/core/counters.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/plan/plan.hpp>

namespace shardmesh {
inline namespace v0 {

/// A plan with one rank's part of it.
struct RankPlan {
  Plan plan;
  int rank = 0;
  std::vector<RankStep> steps;  ///< one for each exchange
  /// Stands for both holdings: the same on all ranks.
  Fingerprint fingerprint = {};
};

[[nodiscard]] inline RankPlan make_rank_plan(Plan plan, int rank) {
  RankPlan made{std::move(plan), rank, {}};
  made.fingerprint.add(fingerprint(made.plan.from()).value())
      .add(fingerprint(made.plan.to()).value());
  for (std::size_t step = 0; step < made.plan.steps(); ++step) {
    made.steps.push_back(made.plan.rank_step(step, rank));
  }
  return made;
}

/// @throws as `make_plan`.
[[nodiscard]] inline RankPlan make_rank_plan(Holding const& from, Holding const& to, int rank) {
  return make_rank_plan(make_plan(from, to), rank);
}

/// The plans that one rank has made lately, at most `capacity`; a new one takes the place of the
/// oldest. Threads of the rank may share it. What it hands out stays valid when it is forgotten.
class PlanCache {
 public:
  static constexpr std::size_t capacity = 256;

  /// The plan between two holdings, from the cache or new.
  /// @param rank  whose part, in the numbering of the holdings.
  /// @throws as `make_plan`; nothing is kept then.
  [[nodiscard]] std::shared_ptr<RankPlan const> get(Holding const& from,
                                                    Holding const& to,
                                                    int rank) {
    std::uint64_t const key = Fingerprint()
                                  .add(fingerprint(from).value())
                                  .add(fingerprint(to).value())
                                  .add(static_cast<std::uint64_t>(rank))
                                  .value();
    {
      std::lock_guard const lock(mutex_);
      if (auto const found = plans_.find(key); found != plans_.end()) {
        Plan const& plan = found->second->plan;
        if (plan.from() == from && plan.to() == to && found->second->rank == rank) {
          ++hits_;
          detail::counts().plan_hits.add(1);
          return found->second;
        }
      }
    }
    detail::counts().plan_misses.add(1);
    auto made = std::make_shared<RankPlan const>(make_rank_plan(from, to, rank));
    detail::say(LogLevel::debug, [&] {
      return detail::concat("shardmesh: rank ", std::to_string(rank),
                            " of the mesh has made a plan: ", std::to_string(made->plan.steps()),
                            " exchanges for ", to_string(from.layout()), " -> ",
                            to_string(to.layout()));
    });
    std::lock_guard const lock(mutex_);
    if (plans_.insert_or_assign(key, made).second) {
      if (order_.size() < capacity) {
        order_.push_back(key);
      } else {
        plans_.erase(std::exchange(order_[oldest_], key));
        oldest_ = (oldest_ + 1) % capacity;
      }
    }
    return made;
  }

  /// How many plans are kept.
  [[nodiscard]] std::size_t size() const {
    std::lock_guard const lock(mutex_);
    return plans_.size();
  }
  /// How often a plan was found.
  [[nodiscard]] std::uint64_t hits() const {
    std::lock_guard const lock(mutex_);
    return hits_;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::shared_ptr<RankPlan const>> plans_;  // by fingerprint
  std::vector<std::uint64_t> order_;  // of their making, as a ring
  std::size_t oldest_ = 0;
  std::uint64_t hits_ = 0;
};

}  // namespace v0
}  // namespace shardmesh
