// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <condition_variable>  // brings clocks and durations, without the calendars of <chrono>
#include <cstdint>

#include <shardmesh/core/counters.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Does the thread meet others of its kind by itself, and not because the program has asked?
[[nodiscard]] inline bool& keeps_house() noexcept {
  static thread_local bool keeps = false;
  return keeps;
}

/// While it lives, meetings and waits of the thread are housekeeping, and not counted.
class Housekeeping {
 public:
  Housekeeping() noexcept { keeps_house() = true; }
  Housekeeping(Housekeeping const&) = delete;
  Housekeeping& operator=(Housekeeping const&) = delete;
  ~Housekeeping() { keeps_house() = false; }
};

/// Counts a call in which the calling rank meets others.
inline void count_meeting() noexcept {
  counts().collectives.add(keeps_house() ? 0 : 1);
}

/// While it lives, the thread waits for other ranks (`Counters::waited_ns`).
class Waiting {
 public:
  Waiting() noexcept = default;
  Waiting(Waiting const&) = delete;
  Waiting& operator=(Waiting const&) = delete;
  ~Waiting() {
    std::chrono::nanoseconds const took = Clock::now() - since_;
    counts().waited_ns.add(keeps_house() ? 0 : static_cast<std::uint64_t>(took.count()));
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point since_ = Clock::now();
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
