// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// NCCL: threads with a GPU each, and processes that share the GPUs there are. Processes are forked
// before the first CUDA call, so this program has no test framework around it: it prints a table and
// exits with 0, 1 or 77.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <shardmesh/comm/nccl/launch.hpp>
#include <shardmesh/comm/spawn.hpp>

#include "../support/behaviours.hpp"
#include "../support/redistribute_cases.hpp"

namespace sm = shardmesh;

namespace {

int failures = 0;

void report(std::string const& what, std::string const& problem) {
  std::printf("%-58s %s\n", what.c_str(), problem.empty() ? "ok" : problem.c_str());
  std::fflush(stdout);
  failures += problem.empty() ? 0 : 1;
}

/// The bodies on one world; rank 0 prints what any rank found.
template <class Comm>
void run_rows(Comm const& world, std::string const& engine, long stride) {
  auto const all = [&](std::string const& what, std::string const& problem) {
    std::string first;
    for (std::string const& one : sm::all_gather_text(world, problem)) {
      first = first.empty() ? one : first;
    }
    if (world.rank() == 0) {
      report(engine + ": " + what, first);
    } else {
      failures += first.empty() ? 0 : 1;
    }
  };
  test::run_rows<sm::CudaMemory>(world, all);
  auto const matrix = test::run_matrix<sm::CudaMemory>(world, 31, stride);
  all("redistribute matrix, " + std::to_string(matrix.cases) + " cases", matrix.first_wrong);
}

int run_process(long stride, std::string const& engine) {
  try {
    sm::launch(sm::nccl_environment{.share_devices = true},
               [&](auto& world) { run_rows(world, engine, stride); });
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return failures == 0 ? 0 : 1;
}

/// The number of devices, asked in a child: this process must not touch CUDA before it forks.
int count_devices() {
  return sm::spawn_processes(1, [] { return std::min(sm::cuda::device_count(), 100); })[0];
}

}  // namespace

int main() {
  int const devices = count_devices();
  if (devices == 0) {
    std::puts("SKIP: no usable GPU on this machine");
    return 77;
  }
  std::printf("%d device(s)\n", devices);
  for (int ranks : {2, 3, 4}) {
    std::string const engine =
        "nccl, " + std::to_string(ranks) + " processes on " + std::to_string(devices) + " GPU(s)";
    for (int status :
         sm::spawn_processes(ranks, [&] { return run_process(ranks == 4 ? 11 : 3, engine); })) {
      failures += status == 0 ? 0 : 1;
    }
  }
  // From here on this process uses CUDA itself.
  int const most = std::min(devices, 8);
  for (int ranks = 1; ranks <= most; ranks *= 2) {
    try {
      sm::launch(sm::nccl_threads{ranks}, [&](auto& world) {
        run_rows(world, "nccl, " + std::to_string(ranks) + " threads", 3);
      });
    } catch (std::exception const& error) {
      report("nccl, " + std::to_string(ranks) + " threads", error.what());
    }
  }
  try {
    sm::launch(sm::nccl_threads{devices + 1}, [](auto&) {});
    report("more ranks than GPUs", "was not refused");
  } catch (sm::InvalidArgument const& error) {
    bool const good = std::string(error.what()).find("threads_on_devices") != std::string::npos;
    report("more ranks than GPUs are refused, naming the options", good ? "" : error.what());
  }
  std::printf("%s\n", failures == 0 ? "all ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}
