// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/fingerprint.hpp>
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

[[nodiscard]] SHARDMESH_INLINE RankPlan make_rank_plan(Plan plan, int rank);

/// @throws as `make_plan`.
[[nodiscard]] SHARDMESH_INLINE RankPlan make_rank_plan(Holding const& from,
                                                       Holding const& to,
                                                       int rank);

/// The plans that one rank has made lately, at most `capacity`; a new one takes the place of the
/// oldest. Threads of the rank may share it. What it hands out stays valid when it is forgotten.
class PlanCache {
 public:
  static constexpr std::size_t capacity = 256;

  /// The plan between two holdings, from the cache or new.
  /// @param rank  whose part, in the numbering of the holdings.
  /// @tparam Made  `RankPlan`; a template, so that it is compiled only where plans are wanted.
  /// @throws as `make_plan`; nothing is kept then.
  template <class Made = RankPlan>
  [[nodiscard]] std::shared_ptr<Made const> get(Holding const& from, Holding const& to, int rank);

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
  std::map<std::uint64_t, std::shared_ptr<RankPlan const>> plans_;  // by fingerprint
  std::vector<std::uint64_t> order_;                                // of their making, as a ring
  std::size_t oldest_ = 0;
  std::uint64_t hits_ = 0;
};

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/plan/detail/plan_cache_bodies.hpp>
#endif
