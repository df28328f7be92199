// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What one rank does between its calls, for those that wait for it; shared by all of its groups.
/// Written by the rank's threads, read by whoever tells or waits.
class Activity {
 public:
  struct State {
    bool working = false;
    std::uint64_t progress = 0;  ///< has changed if the rank has got further
    std::string what;            ///< the latest work
    int hops = 0;                ///< 0: its own work; else it waits for one who is so far away
  };
  static constexpr int most_hops = 7;  // so that ranks which wait for each other find an end

  /// Called after each change, in the thread that makes it, where nobody else looks.
  using Tell = void (*)(void* context, State const& now);

  Activity() = default;
  Activity(Tell listener, void* context) : tell_(listener), context_(context) {}

  /// @param counter  counts up as the work goes on; null, or stays until `end`.
  void begin(std::string what, std::atomic<std::uint64_t> const* counter, int hops = 0) {
    {
      std::lock_guard const lock(mutex_);
      works_.push_back({std::move(what), counter, hops});
      ++steps_;
    }
    tell();
  }
  void advance() noexcept {
    ++steps_;
    tell();
  }
  void end(std::atomic<std::uint64_t> const* counter) noexcept {
    {
      std::lock_guard const lock(mutex_);
      for (std::size_t i = works_.size(); i-- > 0;) {
        if (works_[i].counter == counter) {
          steps_ += counter == nullptr ? 1 : *counter + 1;  // so that the sum never falls
          works_.erase(works_.begin() + static_cast<std::ptrdiff_t>(i));
          break;
        }
      }
    }
    tell();
  }

  /// Nobody is there any more whom it could tell.
  void detach() noexcept {
    std::lock_guard const lock(mutex_);
    tell_ = nullptr;
  }

  /// The first group that asks is that of the whole job.
  [[nodiscard]] bool claim_job() noexcept { return !claimed_.exchange(true); }

  /// The rank that was first heard to have failed in the whole job, or whose process to have ended, and what was
  /// said of it. All groups of this rank fail for it, so that nobody waits there for one who has left
  /// because of it. A failure that was told to one group alone concerns no other.
  struct Cause {
    int rank = 0;  ///< in the numbering of the whole job
    std::string what;
  };
  void note_cause(int rank, std::string const& what) {
    std::lock_guard const lock(mutex_);
    if (!cause_) {
      cause_ = Cause{rank, what};
      has_cause_ = true;
    }
  }
  [[nodiscard]] bool has_cause() const noexcept { return has_cause_; }
  [[nodiscard]] std::optional<Cause> cause() const {
    std::lock_guard const lock(mutex_);
    return cause_;
  }

  [[nodiscard]] State state() const {
    std::lock_guard const lock(mutex_);
    State now{!works_.empty(), steps_, works_.empty() ? std::string() : works_.back().what,
              works_.empty() ? 0 : works_.back().hops};
    for (Work const& work : works_) {
      now.progress += work.counter == nullptr ? 0 : work.counter->load();
      now.hops = std::min(now.hops, work.hops);
    }
    return now;
  }

 private:
  struct Work {
    std::string what;
    std::atomic<std::uint64_t> const* counter;
    int hops;
  };

  void tell() noexcept {
    if (tell_) {
      try {
        tell_(context_, state());
      } catch (...) {  // then the others wait no longer than for any other rank
      }
    }
  }

  Tell tell_ = nullptr;
  void* context_ = nullptr;
  mutable std::mutex mutex_;
  std::vector<Work> works_;
  std::optional<Cause> cause_;
  std::atomic<bool> has_cause_ = false;
  std::atomic<bool> claimed_ = false;
  std::atomic<std::uint64_t> steps_{0};
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
