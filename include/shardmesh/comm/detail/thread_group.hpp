// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

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
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What all ranks of a `launch(threads{...})` share: who failed, who has left, who works.
class ThreadsJob {
 public:
  ThreadsJob(int ranks, Limits limits) : limits_(limits) {
    for (int rank = 0; rank < ranks; ++rank) {
      activities_.push_back(std::make_shared<Activity>());
    }
  }

  [[nodiscard]] Limits const& limits() const noexcept { return limits_; }
  [[nodiscard]] std::shared_ptr<Activity> const& activity(int rank) const {
    return activities_[static_cast<std::size_t>(rank)];
  }
  [[nodiscard]] std::exception_ptr error() const noexcept { return error_; }

  /// One lock for the whole job: ranks are few, and what is done under it is short.
  std::mutex mutex;
  std::condition_variable changed;

  /// Keeps the first failure and wakes every rank that waits.
  void fail(int rank, std::string what, std::exception_ptr error) {
    std::lock_guard const lock(mutex);
    if (!error_) {
      error_ = std::move(error);
      failed_rank_ = rank;
      what_ = std::move(what);
    }
    changed.notify_all();
  }

  /// The body of a rank has returned.
  void leave(int rank) {
    std::lock_guard const lock(mutex);
    left_.push_back(rank);
    changed.notify_all();
  }

  /// @pre the lock is held.
  void throw_if_failed(std::string_view operation) const {
    if (error_) {
      throw RankFailed(failed_rank_, "shardmesh::" + std::string(operation) + ": rank " +
                                         std::to_string(failed_rank_) + " failed: " + what_);
    }
  }
  [[nodiscard]] bool failed() const noexcept { return static_cast<bool>(error_); }
  [[nodiscard]] bool has_left(int rank) const { return contains(left_, rank); }

 private:
  Limits limits_;
  std::vector<std::shared_ptr<Activity>> activities_;  // by rank
  std::vector<int> left_;
  std::exception_ptr error_;
  int failed_rank_ = -1;
  std::string what_;
};

/// A group of ranks in one process: a meeting point, and slots for what ranks show each other.
class ThreadGroup {
 public:
  using Bytes = std::vector<std::byte>;

  ThreadGroup(std::shared_ptr<ThreadsJob> job, std::vector<int> world_ranks)
      : job_(std::move(job)),
        world_(std::move(world_ranks)),
        calls_(world_.size(), nullptr),
        arrived_at_(world_.size(), 0),
        slots_{std::vector<Bytes>(world_.size()), std::vector<Bytes>(world_.size())},
        children_(world_.size()),
        born_at_(world_.size(), 0),
        fetched_(world_.size(), 0),
        spins_(world_.size() <= std::thread::hardware_concurrency()) {}

  [[nodiscard]] int size() const noexcept { return static_cast<int>(world_.size()); }
  [[nodiscard]] std::vector<int> const& world_ranks() const noexcept { return world_; }
  /// What a rank of the group does between its calls.
  [[nodiscard]] std::shared_ptr<Activity> const& activity(int rank) const {
    return job_->activity(world_[static_cast<std::size_t>(rank)]);
  }

  /// Waits for all ranks of the group.
  /// @throws RankFailed if a rank of the job fails, CommError if one has left, MismatchError if the
  ///         ranks meet for different calls, TimeoutError naming those that do not come. After
  ///         any of them but MismatchError, which all ranks get, the group meets no more.
  void meet(int rank, Call const& call) {
    std::unique_lock lock(job_->mutex);
    job_->throw_if_failed(call.operation());
    if (!given_up_.empty()) {
      throw TimeoutError(given_up_);
    }
    auto const me = static_cast<std::size_t>(rank);
    calls_[me] = &call;
    arrived_at_[me] = generation_;
    std::string& mismatch = mismatch_[generation_ % 2];  // read by all before it is written again
    if (++count_ == world_.size()) {
      mismatch = compare_calls();
      count_ = 0;
      ++generation_;
      job_->changed.notify_all();
    } else {
      wait(lock, me, call.operation());
    }
    if (!mismatch.empty()) {
      throw MismatchError(mismatch);
    }
  }

  /// Shows bytes to all ranks and returns everybody's. Two sets of slots take turns: a set is written
  /// again only after the next meeting, by when all have read it.
  /// @param call what the ranks meet for; all must give the same.
  [[nodiscard]] std::vector<Bytes> all_gather(int rank,
                                              std::span<std::byte const> mine,
                                              Call const& call) {
    auto& slots = slots_[meetings() % 2];
    slots[static_cast<std::size_t>(rank)].assign(mine.begin(), mine.end());
    meet(rank, call);
    return slots;
  }

  /// The ranks that give the same color in one split, by key, then by rank; none for a negative
  /// color.
  [[nodiscard]] std::vector<int> same_color(int rank, int color, int key, Call const& call) {
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

  /// The sub-group of some ranks, of which each calls this once before the group meets again. Whoever
  /// comes first makes it, the last forgets it.
  [[nodiscard]] std::shared_ptr<ThreadGroup> child(std::vector<int> const& members) {
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

  /// Ends the job of which the group is a part.
  void fail(int rank, std::string what, std::exception_ptr error) {
    job_->fail(world_[static_cast<std::size_t>(rank)], std::move(what), std::move(error));
  }

  /// From here on the calling rank touches memory of the others; see `CopyPhase`.
  void begin_copies() {
    std::lock_guard const lock(job_->mutex);
    ++copying_;
  }
  void end_copies() {
    std::lock_guard const lock(job_->mutex);
    if (--copying_ == 0) {
      job_->changed.notify_all();
    }
  }
  /// Waits until no rank touches another's memory, whatever has failed. No rank stays in a phase
  /// without copying: its next meeting fails.
  void wait_for_copies() {
    std::unique_lock lock(job_->mutex);
    job_->changed.wait(lock, [this] { return copying_ == 0; });
  }

 private:
  /// The same for all ranks between two meetings.
  [[nodiscard]] std::size_t meetings() const { return generation_.load(std::memory_order_acquire); }

  /// Ranks that have processors of their own arrive within microseconds of each other; to sleep and be
  /// woken takes tens.
  void spin(std::unique_lock<std::mutex>& lock, std::size_t mine) const {
    lock.unlock();
    auto const end = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
    while (generation_.load(std::memory_order_acquire) == mine &&
           std::chrono::steady_clock::now() < end) {
      std::this_thread::yield();
    }
    lock.lock();
  }

  void wait(std::unique_lock<std::mutex>& lock, std::size_t me, std::string_view operation) {
    std::size_t const mine = generation_;
    if (spins_) {
      spin(lock, mine);
      if (generation_ != mine) {
        return;
      }
    }
    auto const woken = [&] {
      return generation_ != mine || job_->failed() || !given_up_.empty() ||
             !absent_for_good().empty();
    };
    std::string late;
    if (!job_->changed.wait_for(lock, tick(), woken)) {
      late = wait_long(lock, me, woken);
    }
    if (generation_ != mine) {
      return;
    }
    std::string const left = absent_for_good();
    arrived_at_[me] = 0;  // nobody may meet a rank that is gone
    --count_;
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
    job_->changed.notify_all();
    throw TimeoutError(given_up_);
  }

  /// How long a rank sleeps between two looks at those that do not come.
  [[nodiscard]] std::chrono::milliseconds tick() const {
    return std::clamp(job_->limits().call / 8, std::chrono::milliseconds(20),
                      std::chrono::milliseconds(250));
  }

  /// Goes on waiting as long as those that are missing may come.
  /// @returns who is given up and why; empty if it was woken.
  template <class Woken>
  [[nodiscard]] std::string wait_long(std::unique_lock<std::mutex>& lock,
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
        if (arrived_at_[i] == generation_) {
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

  /// Ranks that have not arrived and never will, as text.
  [[nodiscard]] std::string absent_for_good() const {
    std::string text;
    for (std::size_t i = 0; i < world_.size(); ++i) {
      if (arrived_at_[i] != generation_ && job_->has_left(world_[i])) {
        text += concat(text.empty() ? "" : ", ", std::to_string(world_[i]));
      }
    }
    return text;
  }

  /// All ranks wait in their calls meanwhile, so that these and their arguments can be looked at.
  /// @returns what is wrong; empty if nothing.
  [[nodiscard]] std::string compare_calls() const {
    for (std::size_t i = 1; i < calls_.size(); ++i) {
      if (calls_[i]->fingerprint() != calls_[0]->fingerprint()) {
        return mismatch_text(world_[0], CallText(*calls_[0]), world_[i], CallText(*calls_[i]));
      }
    }
    return {};
  }

  std::shared_ptr<ThreadsJob> job_;
  std::vector<int> world_;
  std::vector<Call const*> calls_;       // of the ranks that wait in a meeting
  std::vector<std::size_t> arrived_at_;  // the last generation at whose meeting each rank arrived
  std::size_t count_ = 0;
  std::size_t copying_ = 0;
  std::atomic<std::size_t> generation_ = 1;  // number of the next meeting; changed under the lock
  std::array<std::string, 2> mismatch_;      // of the last two meetings
  std::string given_up_;                     // why a rank waits no longer
  std::array<std::vector<Bytes>, 2> slots_;
  std::vector<std::shared_ptr<ThreadGroup>> children_;  // by their first ranks
  std::vector<std::size_t> born_at_;                    // the generation of each child
  std::vector<std::size_t> fetched_;                    // so many ranks have their child
  bool spins_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
