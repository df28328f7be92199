// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of plan/plan_cache.hpp.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <shardmesh/core/counters.hpp>
#include <shardmesh/core/fingerprint.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/plan/plan.hpp>
#include <shardmesh/plan/plan_cache.hpp>

namespace shardmesh {
inline namespace v0 {

SHARDMESH_INLINE RankPlan make_rank_plan(Plan plan, int rank) {
  RankPlan made{std::move(plan), rank, {}};
  made.fingerprint.add(fingerprint(made.plan.from()).value())
      .add(fingerprint(made.plan.to()).value());
  for (std::size_t step = 0; step < made.plan.steps(); ++step) {
    made.steps.push_back(made.plan.rank_step(step, rank));
  }
  return made;
}

SHARDMESH_INLINE RankPlan make_rank_plan(Holding const& from, Holding const& to, int rank) {
  return make_rank_plan(make_plan(from, to), rank);
}

template <class Made>
std::shared_ptr<Made const> PlanCache::get(Holding const& from, Holding const& to, int rank) {
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
  auto made = std::make_shared<Made const>(make_rank_plan(from, to, rank));
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

}  // namespace v0
}  // namespace shardmesh
