// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The time in which this process has run. Whoever was stopped, or got no processor for long, must not
/// blame the others for the time that is over when it wakes.
///
/// To be asked several times a second.
class RunningClock {
 public:
  using Time = std::chrono::steady_clock::time_point;

  [[nodiscard]] Time now() {
    Time const real = std::chrono::steady_clock::now();
    if (real - last_ > longest_gap) {
      lost_ += real - last_;
    }
    last_ = real;
    return real - lost_;
  }

 private:
  static constexpr std::chrono::milliseconds longest_gap{1000};
  Time last_ = std::chrono::steady_clock::now();
  Time::duration lost_{0};
};

/// What a rank knows of another one, by its own clock.
class Presence {
 public:
  using Time = RunningClock::Time;
  /// Where the other one is: not in the library; in a `Working`; in a call that meets this rank.
  enum class Place : std::uint64_t { elsewhere, working, in_call };

  /// Something has arrived, if only a part of a message.
  void heard(Time now) noexcept { heard_ = std::max(heard_, now); }
  /// It has got further with what it sends or takes.
  void moved(Time now) noexcept {
    heard(now);
    moved_ = std::max(moved_, now);
  }
  /// It has said what it does.
  void told(Time now, Place place, Activity::State const& state) {
    heard(now);
    if (place != place_ || state.progress != state_.progress) {
      moved(now);
    }
    place_ = place;
    state_ = state;
  }

  [[nodiscard]] bool is_working() const noexcept { return place_ == Place::working; }
  [[nodiscard]] Activity::State const& state() const noexcept { return state_; }

  /// Why it is waited for no longer; empty while it is.
  /// @param missed  what it did not do: "rank 2 did not arrive".
  /// @param since   when this rank began to wait.
  [[nodiscard]] std::string given_up(std::string const& missed,
                                     Time since,
                                     Time now,
                                     Limits const& limits) const {
    auto const passed = [now](Time from, std::chrono::milliseconds limit) {
      return now - from > limit;
    };
    auto const ms = [](std::chrono::milliseconds limit) {
      return concat(std::to_string(limit.count()), " ms");
    };
    if (place_ == Place::elsewhere && passed(std::max(since, moved_), limits.call)) {
      return concat(missed, " within ", ms(limits.call));
    }
    if (passed(heard_, limits.silence)) {
      return concat(missed, ": nothing has been heard from it for ", ms(limits.silence),
                    "; it hangs or is stopped, or its host cannot be reached");
    }
    if (place_ == Place::working && passed(moved_, limits.progress)) {
      return concat(missed, ": it says that it ", escaped(state_.what),
                    ", and has got no further for ", ms(limits.progress));
    }
    return "";
  }

 private:
  Time heard_ = std::chrono::steady_clock::now();
  Time moved_ = heard_;
  Place place_ = Place::elsewhere;
  Activity::State state_;
};

/// Says, while a rank waits for one that works, that this is so, to those that wait for it in other
/// groups. Ranks that wait for each other do not keep themselves alive so: at each step the work is one
/// further away, and soon too far.
class Relay {
 public:
  explicit Relay(std::shared_ptr<Activity> activity) : activity_(std::move(activity)) {}
  Relay(Relay const&) = delete;
  Relay& operator=(Relay const&) = delete;
  ~Relay() { end(); }

  /// Looks at one that has not come yet.
  void look(int world_rank, Presence const& other) {
    if (other.is_working() && other.state().hops < hops_) {
      hops_ = other.state().hops;
      rank_ = world_rank;
      progress_ = other.state().progress;
      what_ = other.state().what;
    }
  }

  /// All have been looked at, which happens again and again.
  void pass_on() {
    if (hops_ == Activity::most_hops) {
      end();
    } else if (told_hops_ != hops_ || told_rank_ != rank_) {
      end();
      activity_->begin(
          concat("waits for rank ", std::to_string(rank_), ", which ", what_.substr(0, 100)),
          &counter_, hops_ + 1);
      told_hops_ = hops_;
      told_rank_ = rank_;
    } else if (told_progress_ != progress_) {
      ++counter_;
    }
    told_progress_ = progress_;
    hops_ = Activity::most_hops;
  }

 private:
  void end() noexcept {
    if (told_hops_ < Activity::most_hops) {
      activity_->end(&counter_);
      told_hops_ = Activity::most_hops;
    }
  }

  std::shared_ptr<Activity> activity_;
  std::atomic<std::uint64_t> counter_{0};
  // The nearest work of this look, and what the others have been told of.
  int hops_ = Activity::most_hops;
  int rank_ = 0;
  std::uint64_t progress_ = 0;
  std::string what_;
  int told_hops_ = Activity::most_hops;
  int told_rank_ = 0;
  std::uint64_t told_progress_ = 0;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
