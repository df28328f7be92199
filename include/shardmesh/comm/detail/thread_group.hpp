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

  ThreadGroup(std::shared_ptr<ThreadsJob> job, std::vector<int> world_ranks);

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
  void meet(int rank, Call const& call, void const* shown = nullptr);

  /// What a rank showed last. Look before the next meeting: after it, the rank may show something else.
  [[nodiscard]] void const* shown(int rank) const {
    return seats_[static_cast<std::size_t>(rank)].shown;
  }

  /// Shows bytes to all ranks and returns everybody's. Two sets of slots take turns: a set is written
  /// again only after the next meeting, by when all have read it.
  /// @param call what the ranks meet for; all must give the same.
  [[nodiscard]] std::vector<Bytes> all_gather(int rank,
                                              std::span<std::byte const> mine,
                                              Call const& call);

  /// The ranks that give the same color in one split, by key, then by rank; none for a negative
  /// color.
  [[nodiscard]] std::vector<int> same_color(int rank, int color, int key, Call const& call);

  /// The sub-group of some ranks, of which each calls this once before the group meets again. Whoever
  /// comes first makes it, the last forgets it.
  [[nodiscard]] std::shared_ptr<ThreadGroup> child(std::vector<int> const& members);

  /// Ends the job of which the group is a part.
  void fail(int rank, std::string what, std::exception_ptr error) {
    job_->fail(world_[static_cast<std::size_t>(rank)], std::move(what), std::move(error));
  }

  /// From here on the calling rank touches memory of the others; see `CopyPhase`.
  /// @returns the meeting before which it cannot know any of it.
  [[nodiscard]] std::size_t begin_copies() noexcept {
    copying_.fetch_add(1, std::memory_order_acq_rel);
    return meetings();
  }
  void end_copies() noexcept {
    if (copying_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      copying_.notify_all();
    }
  }
  /// Has a meeting ended, for all ranks?
  [[nodiscard]] bool is_over(std::size_t meeting) const { return meetings() != meeting; }
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

  /// Ends the meeting for all if all are there: a rank that gives up waiting goes away under the lock.
  /// @returns whether they were.
  [[nodiscard]] bool let_go(std::size_t meeting);

  /// Ranks that have processors of their own arrive within microseconds of each other; to sleep and be
  /// woken takes tens.
  /// @returns whether the meeting is over.
  [[nodiscard]] bool spin(std::size_t meeting) const;

  /// Waits for the end of a meeting at which the rank has arrived.
  void wait(std::size_t me, std::size_t meeting, std::string_view operation);

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
                                      Woken const& woken) const;

  [[nodiscard]] bool has_arrived(std::size_t i) const {
    return seats_[i].arrived_at.load(std::memory_order_acquire) == meetings();
  }

  /// Ranks that have not arrived and never will, as text.
  [[nodiscard]] std::string absent_for_good() const;

  /// All ranks wait in their calls meanwhile, so that these and their arguments can be looked at.
  /// @returns what is wrong; empty if nothing.
  [[nodiscard]] std::string compare_calls() const;

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

#if SHARDMESH_WITH_BODIES
#include <shardmesh/comm/detail/thread_group_bodies.hpp>
#endif
