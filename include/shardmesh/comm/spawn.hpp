// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <shardmesh/comm/detail/socket.hpp>
#include <shardmesh/comm/job_secret.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// What a forked process does: it never returns into the caller's program.
template <class Body>
[[noreturn]] void run_child(int rank, int ranks, int port, std::string const& secret, Body& body) {
  auto const set = [](char const* name, std::string const& value) {
    ::setenv(name, value.c_str(), 1);
  };
  set("RANK", std::to_string(rank));
  set("WORLD_SIZE", std::to_string(ranks));
  set("LOCAL_RANK", std::to_string(rank));
  set("LOCAL_WORLD_SIZE", std::to_string(ranks));
  set("MASTER_ADDR", "127.0.0.1");
  set("MASTER_PORT", std::to_string(port));
  set(JobSecret::variable, secret);
  int result = EXIT_FAILURE;
  try {
    result = body();
  } catch (std::exception const& error) {
    say(LogLevel::error, [&] { return concat("rank ", std::to_string(rank), ": ", error.what()); });
  } catch (...) {
    say(LogLevel::error, [&] {
      return concat("rank ", std::to_string(rank), ": an exception that is no std::exception");
    });
  }
  std::fflush(nullptr);
  std::_Exit(result);
}

/// The processes of a job, and how they ended.
class Children {
 public:
  void add(pid_t child) {
    children_.push_back(child);
    status_.push_back(-1);
  }

  /// Waits for all; once one has failed, the others get `grace` before they are killed.
  [[nodiscard]] std::vector<int> wait(std::chrono::milliseconds grace) {
    using Clock = std::chrono::steady_clock;
    bool failed = false;
    Clock::time_point deadline;
    while (look()) {
      bool const fails = std::any_of(status_.begin(), status_.end(), [](int s) { return s > 0; });
      if (fails && !failed) {
        failed = true;
        deadline = Clock::now() + grace;
      }
      if (failed && Clock::now() >= deadline) {
        kill();
      }
      ::usleep(10'000);
    }
    return status_;
  }

  /// Ends those that still run.
  void kill() const {
    for (std::size_t i = 0; i < children_.size(); ++i) {
      if (status_[i] < 0) {
        ::kill(children_[i], SIGKILL);
      }
    }
  }

 private:
  /// Asks after these processes only: others of the caller are not ours to wait for.
  /// @returns whether any still runs.
  bool look() {
    bool running = false;
    for (std::size_t i = 0; i < children_.size(); ++i) {
      if (status_[i] >= 0) {
        continue;
      }
      int raw = 0;
      pid_t const ended = ::waitpid(children_[i], &raw, WNOHANG);
      if (ended == children_[i]) {
        status_[i] = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
      } else if (ended < 0 && errno == ECHILD) {
        throw CommError("shardmesh: the process of rank " + std::to_string(i) +
                        " ended without a status; SIGCHLD must not be ignored");
      }
      running = running || status_[i] < 0;
    }
    return running;
  }

  std::vector<pid_t> children_;
  std::vector<int> status_;
};

}  // namespace detail

/// Forks `ranks` processes that find torchrun's variables and a new job's secret set, and calls `body()` in each; its result
/// is the process's exit status, 1 (and a line of `LogLevel::error`) if it throws. Waits for all; once one has
/// failed, the others get `grace_seconds` to see it, then are killed.
///
/// Call it before the first CUDA call and before threads are started: neither survives a fork.
/// @returns for each rank its exit status, or 128 + the signal that ended it.
/// @throws CommError if a process cannot be started.
template <class Body>
[[nodiscard]] std::vector<int> spawn_processes(int ranks,
                                               Body&& body,
                                               unsigned grace_seconds = 20) {
  int const port = detail::Socket::listen(0).port();
  std::string const secret = JobSecret::random().text();
  detail::Children children;
  std::fflush(nullptr);  // or the children would write what is buffered here once more
  for (int rank = 0; rank < ranks; ++rank) {
    pid_t const child = ::fork();
    if (child < 0) {
      std::string const why = std::strerror(errno);
      children.kill();
      static_cast<void>(children.wait(std::chrono::seconds(0)));
      throw CommError("shardmesh: cannot start a process: " + why);
    }
    if (child == 0) {
      detail::run_child(rank, ranks, port, secret, body);
    }
    children.add(child);
  }
  return children.wait(std::chrono::seconds(grace_seconds));
}

}  // namespace v0
}  // namespace shardmesh
