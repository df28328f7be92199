// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of comm/detail/thread_group.hpp.

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>  // brings clocks and durations, without the calendars of <chrono>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <shardmesh/comm/call.hpp>
#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/detail/presence.hpp>
#include <shardmesh/comm/detail/thread_group.hpp>
#include <shardmesh/comm/detail/threads_job.hpp>
#include <shardmesh/comm/detail/waiting.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

SHARDMESH_INLINE ThreadGroup::ThreadGroup(std::shared_ptr<ThreadsJob> job,
                                          std::vector<int> world_ranks)
    : job_(std::move(job)),
      world_(std::move(world_ranks)),
      seats_(world_.size()),
      slots_{std::vector<Bytes>(world_.size()), std::vector<Bytes>(world_.size())},
      children_(world_.size()),
      born_at_(world_.size(), 0),
      fetched_(world_.size(), 0),
      spins_(world_.size() <= std::thread::hardware_concurrency()) {}

SHARDMESH_INLINE void ThreadGroup::meet(int rank, Call const& call, void const* shown) {
  if (job_->failed() || over_.load(std::memory_order_acquire)) {
    std::lock_guard const lock(job_->mutex);
    job_->throw_if_failed(call.operation());
    throw TimeoutError(given_up_);
  }
  count_meeting();
  std::size_t const meeting = meetings();  // nobody can end it before this rank arrives
  Seat& seat = seats_[static_cast<std::size_t>(rank)];
  seat.call = &call;
  if (shown != nullptr) {
    seat.shown = shown;
  }
  seat.arrived_at.store(meeting, std::memory_order_release);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < world_.size() || !let_go(meeting)) {
    wait(static_cast<std::size_t>(rank), meeting, call.operation());
  }
  // Written before the meeting ended, and again only after all have arrived at the next.
  if (std::string const& mismatch = mismatch_[meeting % 2]; !mismatch.empty()) {
    throw MismatchError(mismatch);
  }
}

SHARDMESH_INLINE std::vector<ThreadGroup::Bytes> ThreadGroup::all_gather(
    int rank, std::span<std::byte const> mine, Call const& call) {
  auto& slots = slots_[meetings() % 2];
  slots[static_cast<std::size_t>(rank)].assign(mine.begin(), mine.end());
  meet(rank, call);
  return slots;
}

SHARDMESH_INLINE std::vector<int> ThreadGroup::same_color(int rank,
                                                          int color,
                                                          int key,
                                                          Call const& call) {
  int const mine[2] = {color, key};
  auto const* const bytes = reinterpret_cast<std::byte const*>(mine);
  auto const wishes = all_gather(rank, {bytes, sizeof(mine)}, call);
  std::vector<int> members;
  std::vector<int> keys;
  for (std::size_t i = 0; i < wishes.size(); ++i) {
    int wish[2];
    std::memcpy(wish, wishes[i].data(), sizeof(wish));
    if (color < 0 || wish[0] != color) {
      continue;
    }
    std::size_t at = keys.size();
    while (at > 0 && keys[at - 1] > wish[1]) {
      --at;
    }
    keys.insert(keys.begin() + static_cast<std::ptrdiff_t>(at), wish[1]);
    members.insert(members.begin() + static_cast<std::ptrdiff_t>(at), static_cast<int>(i));
  }
  return members;
}

SHARDMESH_INLINE std::shared_ptr<ThreadGroup> ThreadGroup::child(std::vector<int> const& members) {
  std::lock_guard const lock(job_->mutex);
  auto const place = static_cast<std::size_t>(members.front());
  if (!children_[place] || born_at_[place] != generation_) {
    std::vector<int> world;
    for (int member : members) {
      world.push_back(world_[static_cast<std::size_t>(member)]);
    }
    children_[place] = std::make_shared<ThreadGroup>(job_, std::move(world));
    children_[place]->spins_ = spins_;  // the number of all ranks decides
    born_at_[place] = generation_;
    fetched_[place] = 0;
  }
  std::shared_ptr<ThreadGroup> result = children_[place];
  if (++fetched_[place] == members.size()) {
    children_[place] = nullptr;
  }
  return result;
}

SHARDMESH_INLINE bool ThreadGroup::let_go(std::size_t meeting) {
  std::lock_guard const lock(job_->mutex);
  if (arrived_.load(std::memory_order_acquire) != world_.size()) {
    return false;
  }
  mismatch_[meeting % 2] = compare_calls();
  arrived_.store(0, std::memory_order_relaxed);
  generation_.store(meeting + 1, std::memory_order_release);
  if (sleepers_ > 0) {
    job_->changed.notify_all();
  }
  return true;
}

SHARDMESH_INLINE bool ThreadGroup::spin(std::size_t meeting) const {
  for (int look = 0; look < 200; ++look) {
    if (is_over(meeting)) {
      return true;
    }
  }
  auto const end = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
  do {
    std::this_thread::yield();
    if (is_over(meeting)) {
      return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

SHARDMESH_INLINE void ThreadGroup::wait(std::size_t me,
                                        std::size_t meeting,
                                        std::string_view operation) {
  Waiting const waiting;
  if (spins_ && spin(meeting)) {
    return;
  }
  std::unique_lock lock(job_->mutex);
  auto const woken = [&] {
    return is_over(meeting) || job_->failed() || !given_up_.empty() || !absent_for_good().empty();
  };
  std::string late;
  ++sleepers_;
  if (!job_->changed.wait_for(lock, tick(), woken)) {
    late = wait_long(lock, me, woken);
  }
  --sleepers_;
  if (is_over(meeting)) {
    return;
  }
  std::string const left = absent_for_good();
  seats_[me].arrived_at.store(0,
                              std::memory_order_relaxed);  // nobody may meet a rank that is gone
  arrived_.fetch_sub(1, std::memory_order_acq_rel);
  job_->throw_if_failed(operation);
  if (!given_up_.empty()) {
    throw TimeoutError(given_up_);
  }
  std::string const where = concat("shardmesh::", operation, ": ");
  if (late.empty()) {
    throw CommError(where + "rank " + left +
                    " has left without taking part; every rank must make the same calls");
  }
  given_up_ = where + late;
  over_.store(true, std::memory_order_release);
  job_->changed.notify_all();
  throw TimeoutError(given_up_);
}

template <class Woken>
std::string ThreadGroup::wait_long(std::unique_lock<std::mutex>& lock,
                                   std::size_t me,
                                   Woken const& woken) const {
  RunningClock clock;
  auto const since = clock.now() - tick();
  std::vector<Presence> others(world_.size());
  Relay relay(job_->activity(world_[me]));
  while (true) {
    auto const now = clock.now();
    std::string names;
    std::string stuck;
    for (std::size_t i = 0; i < world_.size(); ++i) {
      if (has_arrived(i)) {
        continue;
      }
      Activity::State const state = job_->activity(world_[i])->state();
      others[i].told(now, state.working ? Presence::Place::working : Presence::Place::elsewhere,
                     state);
      std::string const who = concat("rank ", std::to_string(world_[i]), " did not arrive");
      std::string const late = others[i].given_up(who, since, now, job_->limits());
      if (!late.empty() && !state.working) {
        names += concat(names.empty() ? "" : ", ", std::to_string(world_[i]));
      } else if (!late.empty()) {
        stuck = late;
      }
      relay.look(world_[i], others[i]);
    }
    relay.pass_on();
    if (!names.empty()) {
      return concat("rank ", names, " did not arrive within ",
                    std::to_string(job_->limits().call.count()),
                    " ms; look at what it waits for, or raise the timeout of the launch");
    }
    if (!stuck.empty() || job_->changed.wait_for(lock, tick(), woken)) {
      return stuck;
    }
  }
}

SHARDMESH_INLINE std::string ThreadGroup::absent_for_good() const {
  std::string text;
  for (std::size_t i = 0; i < world_.size(); ++i) {
    if (!has_arrived(i) && job_->has_left(world_[i])) {
      text += concat(text.empty() ? "" : ", ", std::to_string(world_[i]));
    }
  }
  return text;
}

SHARDMESH_INLINE std::string ThreadGroup::compare_calls() const {
  Call const& first = *seats_[0].call;
  for (std::size_t i = 1; i < seats_.size(); ++i) {
    Call const& other = *seats_[i].call;
    if (other.fingerprint() != first.fingerprint()) {
      return mismatch_text(world_[0], CallText(first), world_[i], CallText(other));
    }
  }
  return {};
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
