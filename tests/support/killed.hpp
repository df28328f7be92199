// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Processes that are killed while they work: when, in steps that they acknowledge, so that neither a slow
// machine nor a busy one changes what is met.

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>

#include <doctest/doctest.h>

namespace test {

/// When a victim is killed: after it acknowledged so many steps, and then so much time.
struct Moment {
  int steps = 0;
  unsigned microseconds = 0;
};

/// The last step that a victim acknowledged, 0 if none, and the time from the first to the last of those
/// that were waited for.
struct Killed {
  int last = 0;
  std::chrono::microseconds time{0};
};

/// What a victim calls when it is done with a step. @returns whether anybody still listens.
inline bool acknowledge(int descriptor, int step) {
  return ::write(descriptor, &step, sizeof(step)) == sizeof(step);
}

/// Reads one acknowledged step; 0 if the writers have ended.
inline int acknowledged_step(int descriptor) {
  int step = 0;
  return ::read(descriptor, &step, sizeof(step)) == sizeof(step) ? step : 0;
}

/// Forks a process group that does `work(descriptor)`, for ever, and kills it whole at the moment.
template <class Work>
Killed kill_in(Moment moment, Work work) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::cout.flush();
  std::fflush(nullptr);
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::setpgid(0, 0);
    ::close(ends[0]);
    work(ends[1]);
    ::_exit(0);
  }
  ::setpgid(child, child);
  ::close(ends[1]);
  Killed killed;
  std::chrono::steady_clock::time_point start;
  for (int i = 0; i < moment.steps; ++i) {
    ::pollfd acknowledged{ends[0], POLLIN, 0};
    CHECK(::poll(&acknowledged, 1, 300'000) == 1);
    killed.last = acknowledged_step(ends[0]);
    auto const now = std::chrono::steady_clock::now();
    start = i == 0 ? now : start;
    killed.time = std::chrono::duration_cast<std::chrono::microseconds>(now - start);
  }
  ::usleep(moment.microseconds);
  ::kill(-child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  for (int step = 0; (step = acknowledged_step(ends[0])) != 0;) {  // to the end: all are dead
    killed.last = step;
  }
  ::close(ends[0]);
  return killed;
}

/// What two steps take, in microseconds: moments are spread over so much.
template <class Work>
unsigned two_steps(Work work) {
  constexpr int timed = 5;
  auto const time = kill_in({timed, 0}, work).time;
  return static_cast<unsigned>(2 * time.count() / (timed - 1) + 1);
}

}  // namespace test
