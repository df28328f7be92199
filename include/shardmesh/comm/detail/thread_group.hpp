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
#include <shardmesh/comm/detail/threads_job.hpp>
#include <shardmesh/comm/detail/waiting.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A group of ranks in one process: a meeting point, and slots for what ranks show each other.
class ThreadGroup {
 public:
  using Bytes = std::vector<std::byte>;

  ThreadGroup(std::shared_ptr<ThreadsJob> job, std::vector<int> world_ranks)
      : job_(std::move(job)),
        world_(std::move(world_ranks)),
        seats_(world_.size()),
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
  /// @param shown  what the others may look at from then on, if it is not null; see `shown`.
  /// @throws RankFailed if a rank of the job fails, CommError if one has left, MismatchError if the
  ///         ranks meet for different calls, TimeoutError naming those that do not come. After
  ///         any of them but MismatchError, which all ranks get, the group meets no more.
  void meet(int rank, Call const& call, void const* shown = nullptr) {
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

  /// What a rank showed last. Look before the next meeting: after it, the rank may show something else.
  [[nodiscard]] void const* shown(int rank) const {
    return seats_[static_cast<std::size_t>(rank)].shown;
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
  void begin_copies() noexcept { copying_.fetch_add(1, std::memory_order_acq_rel); }
  void end_copies() noexcept {
    if (copying_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      copying_.notify_all();
    }
  }
  /// Waits until no rank touches another's memory, whatever has failed. No rank stays in a phase
  /// without copying: its next meeting fails.
  void wait_for_copies() noexcept {
    for (int now = copying_.load(std::memory_order_acquire); now != 0;
         now = copying_.load(std::memory_order_acquire)) {
      copying_.wait(now, std::memory_order_acquire);
    }
  }

  /// What a rank keeps from one exchange to the next: made at its first, and for that rank's thread alone.
  template <class Kept>
  [[nodiscard]] Kept& kept(int rank) {
    static constexpr char type = 0;  // its address is the type's
    auto& all = seats_[static_cast<std::size_t>(rank)].kept;
    for (KeptValue const& one : all) {
      if (one.type == &type) {
        return *static_cast<Kept*>(one.value.get());
      }
    }
    all.push_back({&type, std::make_shared<Kept>()});
    return *static_cast<Kept*>(all.back().value.get());
  }

 private:
  struct KeptValue {
    char const* type = nullptr;
    std::shared_ptr<void> value;
  };

  /// A rank's place at the meetings. Each has cache lines of its own: ranks write them at the same time.
  struct alignas(128) Seat {
    Call const* call = nullptr;  // while it waits in a meeting
    void const* shown = nullptr;
    std::atomic<std::size_t> arrived_at = 0;  // the last meeting at which it arrived
    std::vector<KeptValue> kept;
  };

  /// The number of the next meeting. The same for all ranks between two meetings.
  [[nodiscard]] std::size_t meetings() const { return generation_.load(std::memory_order_acquire); }
  [[nodiscard]] bool is_over(std::size_t meeting) const { return meetings() != meeting; }

  /// Ends the meeting for all if all are there: a rank that gives up waiting goes away under the lock.
  /// @returns whether they were.
  [[nodiscard]] bool let_go(std::size_t meeting) {
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

  /// Ranks that have processors of their own arrive within microseconds of each other; to sleep and be
  /// woken takes tens.
  /// @returns whether the meeting is over.
  [[nodiscard]] bool spin(std::size_t meeting) const {
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

  /// Waits for the end of a meeting at which the rank has arrived.
  void wait(std::size_t me, std::size_t meeting, std::string_view operation) {
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

  [[nodiscard]] bool has_arrived(std::size_t i) const {
    return seats_[i].arrived_at.load(std::memory_order_acquire) == meetings();
  }

  /// Ranks that have not arrived and never will, as text.
  [[nodiscard]] std::string absent_for_good() const {
    std::string text;
    for (std::size_t i = 0; i < world_.size(); ++i) {
      if (!has_arrived(i) && job_->has_left(world_[i])) {
        text += concat(text.empty() ? "" : ", ", std::to_string(world_[i]));
      }
    }
    return text;
  }

  /// All ranks wait in their calls meanwhile, so that these and their arguments can be looked at.
  /// @returns what is wrong; empty if nothing.
  [[nodiscard]] std::string compare_calls() const {
    Call const& first = *seats_[0].call;
    for (std::size_t i = 1; i < seats_.size(); ++i) {
      Call const& other = *seats_[i].call;
      if (other.fingerprint() != first.fingerprint()) {
        return mismatch_text(world_[0], CallText(first), world_[i], CallText(other));
      }
    }
    return {};
  }

  std::shared_ptr<ThreadsJob> job_;
  std::vector<int> world_;
  std::vector<Seat> seats_;
  // Those that come write one line while those that wait look at another.
  alignas(128) std::atomic<std::size_t> arrived_ = 0;  // ranks at the meeting that is to come
  std::atomic<int> copying_ = 0;
  alignas(128) std::atomic<std::size_t> generation_ =
      1;                                 // the next meeting; changed under the lock
  std::size_t sleepers_ = 0;             // ranks that wait and do not look themselves
  std::array<std::string, 2> mismatch_;  // of the last two meetings
  std::string given_up_;                 // why a rank waits no longer
  std::atomic<bool> over_ = false;       // there is such a reason
  std::array<std::vector<Bytes>, 2> slots_;
  std::vector<std::shared_ptr<ThreadGroup>> children_;  // by their first ranks
  std::vector<std::size_t> born_at_;                    // the generation of each child
  std::vector<std::size_t> fetched_;                    // so many ranks have their child
  bool spins_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
