// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/error.hpp>

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

  /// One lock for the whole job: ranks are few, what is done under it is short, and ranks that meet in time
  /// take it once for all of them.
  std::mutex mutex;
  std::condition_variable changed;

  /// Keeps the first failure and wakes every rank that waits.
  void fail(int rank, std::string what, std::exception_ptr error) {
    std::lock_guard const lock(mutex);
    if (!error_) {
      error_ = std::move(error);
      failed_rank_ = rank;
      what_ = std::move(what);
      failed_.store(true, std::memory_order_release);
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
  /// May be asked without the lock.
  [[nodiscard]] bool failed() const noexcept { return failed_.load(std::memory_order_acquire); }
  [[nodiscard]] bool has_left(int rank) const { return contains(left_, rank); }

 private:
  Limits limits_;
  std::vector<std::shared_ptr<Activity>> activities_;  // by rank
  std::vector<int> left_;
  std::atomic<bool> failed_ = false;
  std::exception_ptr error_;
  int failed_rank_ = -1;
  std::string what_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
