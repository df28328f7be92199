// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include <shardmesh/comm/detail/thread_group.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// While it lives, ranks that share an address space may touch each other's memory.
///
/// Begin it before the meeting at which ranks show their addresses. A rank calls `end()` when it
/// touches nothing more, and `close()` after the meeting that shows that all have ended. A rank that
/// leaves early, by an exception, first finishes its own copies and then waits until nobody copies:
/// the memory that it is about to free is in use until then.
template <class Stream>
class CopyPhase {
 public:
  CopyPhase(std::shared_ptr<ThreadGroup> group, int rank, Stream stream)
      : group_(std::move(group)),
        rank_(rank),
        stream_(stream),
        first_meeting_(group_->begin_copies()) {}
  CopyPhase(CopyPhase const&) = delete;
  CopyPhase& operator=(CopyPhase const&) = delete;
  ~CopyPhase() {
    if (closed_) {
      return;
    }
    if (!ended_) {
      finish_copies();
      group_->end_copies();
    }
    // Before the meeting nobody knows this rank's addresses; those that wait there wait for this rank.
    if (group_->is_over(first_meeting_)) {
      group_->wait_for_copies();
    }
  }

  /// The meeting at which ranks show what the others need to reach their memory.
  /// @param shown  lives until the phase has been closed, and longer than it.
  void show(void const* shown, Call const& call) { group_->meet(rank_, call, shown); }
  /// What a rank has shown in this phase.
  template <class Shown>
  [[nodiscard]] Shown const& shown(int rank) const {
    return *static_cast<Shown const*>(group_->shown(rank));
  }

  /// What this rank keeps from one phase to the next.
  template <class Kept>
  [[nodiscard]] Kept& kept() const {
    return group_->template kept<Kept>(rank_);
  }

  void end() noexcept {
    group_->end_copies();
    ended_ = true;
  }
  void close() noexcept { closed_ = true; }

 private:
  /// A device that fails here has failed before, and that error is on its way.
  void finish_copies() noexcept {
    try {
      stream_.synchronize();
    } catch (Error const&) {
      return;
    }
  }

  std::shared_ptr<ThreadGroup> group_;
  int rank_;
  Stream stream_;
  std::size_t first_meeting_;
  bool ended_ = false;
  bool closed_ = false;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
