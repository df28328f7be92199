// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <shardmesh/comm/detail/activity.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Where a communicator keeps what its rank does: its own, that of its control channel, or none.
template <class Comm>
[[nodiscard]] std::shared_ptr<Activity> activity_of(Comm const& comm) {
  if constexpr (requires { comm.activity(); }) {
    return comm.activity();
  } else if constexpr (requires { comm.control(); }) {
    return activity_of(comm.control());
  } else {
    return nullptr;
  }
}

}  // namespace detail

/// Says, while it lives, that this rank does long work before its next call: the others then wait for
/// as long as it gets further (`Limits::progress`), not just for `Limits::call`. `save` and `load` say
/// so of what they do with files; a program may of its own work.
///
///     Working work(world, "evaluates the model");
///     for (Batch const& batch : batches) {
///       evaluate(batch);
///       work.advance();
///     }
///
/// A rank that fails, ends or hangs meanwhile is noticed as ever. Communicators of other libraries
/// that know nothing of this keep their own limits.
class Working {
 public:
  /// @param comm     any group of the rank: all groups that were split from the same one hear of it.
  /// @param what     goes after "it says that it", e.g. "writes its part of step-7".
  /// @param counter  grows as the work goes on, in place of calls of `advance`; must outlive this.
  template <class Comm>
  Working(Comm const& comm, std::string what, std::atomic<std::uint64_t> const* counter = nullptr)
      : activity_(detail::activity_of(comm)), counter_(counter) {
    if (activity_) {
      activity_->begin(std::move(what), counter_);
    }
  }
  Working(Working const&) = delete;
  Working& operator=(Working const&) = delete;
  ~Working() {
    if (activity_) {
      activity_->end(counter_);
    }
  }

  /// The work has got further.
  void advance() noexcept {
    if (activity_) {
      activity_->advance();
    }
  }

 private:
  std::shared_ptr<detail::Activity> activity_;
  std::atomic<std::uint64_t> const* counter_;
};

}  // namespace v0
}  // namespace shardmesh
