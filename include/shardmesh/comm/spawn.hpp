// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <shardmesh/comm/detail/socket.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh::inline v0 {

/// Forks `ranks` processes that find torchrun's variables set, and calls `body()` in each; its result
/// is the process's exit status. Waits for all; once one has failed, the others get `grace_seconds`
/// to see it, then are killed.
///
/// Call it before the first CUDA call and before threads are started: neither survives a fork.
/// @returns for each rank its exit status, or 128 + the signal that ended it.
/// @throws CommError if a process cannot be started.
template <class Body>
[[nodiscard]] std::vector<int> spawn_processes(int ranks,
                                               Body&& body,
                                               unsigned grace_seconds = 20) {
  int const port = detail::Socket::listen(0).port();
  std::vector<pid_t> children;
  for (int rank = 0; rank < ranks; ++rank) {
    pid_t const child = ::fork();
    if (child < 0) {
      throw CommError(std::string("shardmesh: cannot start a process: ") + std::strerror(errno));
    }
    if (child == 0) {
      auto const set = [](char const* name, std::string const& value) {
        ::setenv(name, value.c_str(), 1);
      };
      set("RANK", std::to_string(rank));
      set("WORLD_SIZE", std::to_string(ranks));
      set("LOCAL_RANK", std::to_string(rank));
      set("LOCAL_WORLD_SIZE", std::to_string(ranks));
      set("MASTER_ADDR", "127.0.0.1");
      set("MASTER_PORT", std::to_string(port));
      int const result = body();
      std::fflush(nullptr);
      std::_Exit(result);
    }
    children.push_back(child);
  }
  std::vector<int> status(children.size(), -1);
  unsigned waited_ms = 0;
  std::size_t running = children.size();
  bool failed = false;
  while (running > 0) {
    int raw = 0;
    pid_t const ended = ::waitpid(-1, &raw, WNOHANG);
    if (ended <= 0) {
      ::usleep(10'000);
      waited_ms += failed ? 10 : 0;
      if (waited_ms > grace_seconds * 1000) {
        for (std::size_t i = 0; i < children.size(); ++i) {
          if (status[i] < 0) {
            ::kill(children[i], SIGKILL);
          }
        }
      }
      continue;
    }
    for (std::size_t i = 0; i < children.size(); ++i) {
      if (children[i] == ended) {
        status[i] = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
        failed = failed || status[i] != 0;
        --running;
      }
    }
  }
  return status;
}

}  // namespace shardmesh::inline v0
