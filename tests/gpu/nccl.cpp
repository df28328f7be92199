// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// NCCL: threads with a GPU each, and processes that share the GPUs there are. Processes are forked
// before the first CUDA call, so this program has no test framework around it: it prints a table and
// exits with 0, 1 or 77.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <shardmesh/comm/nccl/launch.hpp>
#include <shardmesh/comm/spawn.hpp>

#include "../support/transfer_cases.hpp"
#include "collectives.hpp"
#include "counted.hpp"
#include "nccl_disagreements.hpp"
#include "nccl_rows.hpp"
#include "pushes.hpp"

namespace sm = shardmesh;

namespace {

int failures = 0;

void report(std::string const& what, std::string const& problem) {
  std::printf("%-72s %s\n", what.c_str(), problem.empty() ? "ok" : problem.c_str());
  std::fflush(stdout);
  failures += problem.empty() ? 0 : 1;
}

std::string on_devices(int ranks, char const* kind, int devices) {
  return "nccl, " + std::to_string(ranks) + " " + kind + " on " + std::to_string(devices) +
         " GPU(s)";
}

/// The bodies on one world; rank 0 prints what any rank found.
template <class Comm>
void run_bodies(Comm const& world, std::string const& engine, long stride) {
  auto const all = [&](std::string const& what, std::string const& problem) {
    std::string first;
    for (std::string const& one : sm::all_gather_text(world, problem)) {
      first = first.empty() ? one : first;
    }
    if (world.rank() == 0) {
      report(engine + ": " + what, first);
    }
  };
  test::nccl_rows(world, all);
  test::nccl_offload(world, all);
  test::nccl_training(world, all);
  all("native collectives, all types, streams", test::native_collectives(world));
  all("adopted communicator, blocking", test::adopted_communicator(world, 1));
  all("adopted communicator, not blocking", test::adopted_communicator(world, 0));
  all("no hidden waits, no allocation in steady state", test::no_hidden_waits(world));
  auto const matrix = test::run_matrix<sm::CudaMemory>(world, 31, stride);
  all("redistribute matrix, " + std::to_string(matrix.cases) + " cases", matrix.first_wrong);
  auto const sent = test::run_transfers<sm::CudaMemory>(world, 41, 5, 100);
  all("transfers between meshes, " + std::to_string(sent.cases) + " cases", sent.first_wrong);
}

/// Runs `body` in processes that share the devices; it returns what is wrong.
template <class Body>
void run_processes(std::string const& what, int ranks, Body&& body) {
  auto const statuses = sm::spawn_processes(ranks, [&] {
    failures = 0;  // of this process
    std::string const problem = body();
    if (!problem.empty()) {
      std::printf("%s: %s\n", what.c_str(), problem.c_str());
    }
    return problem.empty() && failures == 0 ? 0 : 1;
  });
  std::string problem;
  for (std::size_t rank = 0; rank < statuses.size(); ++rank) {
    if (statuses[rank] != 0) {
      problem += " rank " + std::to_string(rank) + " ended with " + std::to_string(statuses[rank]);
    }
  }
  report(what, problem);
}

/// The error that a rank gets, and what is wrong with it.
template <class E, class Body>
std::string expect_error(std::string const& part, Body&& body) {
  try {
    body();
  } catch (E const& error) {
    std::string const text = error.what();
    return text.find(part) != std::string::npos ? "" : "instead of \"" + part + "\": " + text;
  } catch (std::exception const& error) {
    return "another kind of error than expected: " + std::string(error.what());
  }
  return "no error instead of \"" + part + "\"";
}

template <class Comm>
void exchange_once(Comm const& world, test::OwnStream const& stream) {
  sm::Tensor<float, sm::CudaMemory> const sent(sm::Shape{1000}, stream.get());
  sm::Tensor<float, sm::CudaMemory> const got(sm::Shape{1000}, stream.get());
  sm::Message const send{(world.rank() + 1) % world.size(), sent.data(), sent.bytes()};
  sm::Message receive{(world.rank() + world.size() - 1) % world.size(), got.data(), got.bytes()};
  world.template exchange<sm::CudaMemory>({&send, 1}, {&receive, 1}, stream.get());
}

/// The last rank does not come to the second exchange; the others wait for the device.
std::string absent_rank(int ranks) {
  std::string const who = "rank " + std::to_string(ranks - 1) + " did not arrive";
  return expect_error<sm::TimeoutError>(who, [&] {
    sm::launch(sm::nccl_environment{.share_devices = true, .timeout = std::chrono::seconds(5)},
               [&](auto& world) {
                 test::OwnStream const stream;
                 exchange_once(world, stream);
                 stream.get().synchronize();
                 world.barrier();
                 while (world.rank() == ranks - 1) {
                   std::this_thread::sleep_for(std::chrono::milliseconds(10));
                   world.check();
                 }
                 exchange_once(world, stream);
                 stream.get().synchronize();
                 world.barrier();
               });
  });
}

/// Rank 1 throws while the others wait for the device.
std::string throwing_rank() {
  auto const body = [](auto& world) {
    test::OwnStream const stream;
    exchange_once(world, stream);
    if (world.rank() == 1) {
      throw std::runtime_error("the loss is NaN");
    }
    exchange_once(world, stream);
    stream.get().synchronize();
    world.barrier();
  };
  auto const run = [&] { sm::launch(sm::nccl_environment{.share_devices = true}, body); };
  return sm::read_environment().rank == 1
             ? expect_error<std::runtime_error>("the loss is NaN", run)
             : expect_error<sm::RankFailed>("rank 1 failed: the loss is NaN", run);
}

/// A rank does not come to an exchange that is pushed, or throws before it, while the others' devices wait.
std::string missing_in_push(int ranks, bool throws) {
  auto const body = [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {world.size()});
    test::push_once(world, mesh);
    sm::CudaStream{}.synchronize();
    world.barrier();
    if (world.rank() == ranks - 1 && throws) {
      throw std::runtime_error("the loss is NaN");
    }
    while (world.rank() == ranks - 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      world.check();
    }
    test::push_once(world, mesh);
    sm::CudaStream{}.synchronize();
    world.barrier();
  };
  auto const run = [&] {
    sm::launch(sm::nccl_environment{.share_devices = true, .timeout = std::chrono::seconds(5)},
               body);
  };
  std::string const last = "rank " + std::to_string(ranks - 1);
  if (!throws) {
    return expect_error<sm::TimeoutError>(last + " did not arrive", run);
  }
  return sm::read_environment().rank == ranks - 1
             ? expect_error<std::runtime_error>("the loss is NaN", run)
             : expect_error<sm::RankFailed>(last + " failed: the loss is NaN", run);
}

/// The number of devices, asked in a child: this process must not touch CUDA before it forks.
int count_devices() {
  return sm::spawn_processes(1, [] { return std::min(sm::cuda::device_count(), 100); })[0];
}

void test_processes(int devices) {
  for (int ranks : {2, 3, 4, 8}) {
    std::string const engine = on_devices(ranks, "processes", devices);
    run_processes(engine, ranks, [&] {
      if (ranks != 3) {  // there, small tensors go by messages
        ::setenv(sm::nccl::PeerPush::least_variable, "0", 1);
      }
      sm::launch(sm::nccl_environment{.share_devices = true}, [&](auto& world) {
        run_bodies(world, engine, ranks == 8 ? 37 : ranks == 4 ? 11 : 3);
      });
      return std::string();
    });
    run_processes(engine + ": pushes", ranks, [&] {
      ::setenv(sm::nccl::PeerPush::least_variable, "0", 1);
      std::string problem;
      sm::launch(sm::nccl_environment{.share_devices = true},
                 [&](auto& world) { problem = test::pushes(world); });
      return problem;
    });
  }
  run_processes("nccl, 3 processes: one does not come to a push", 3,
                [] { return missing_in_push(3, false); });
  run_processes("nccl, 3 processes: one throws before a push", 3,
                [] { return missing_in_push(3, true); });
  run_processes("nccl, 3 processes: one does not come", 3, [] { return absent_rank(3); });
  run_processes("nccl, 3 processes: one throws", 3, [] { return throwing_rank(); });
  run_processes("nccl, more processes than GPUs are refused, naming the option", devices + 1, [] {
    return expect_error<sm::InvalidArgument>(
        "SHARDMESH_SHARE_DEVICES=1", [] { sm::launch(sm::nccl_environment{}, [](auto&) {}); });
  });
}

void test_threads(int devices) {
  for (int ranks = 1; ranks <= std::min(devices, 8); ++ranks) {
    std::string const engine = on_devices(ranks, "threads", devices);
    try {
      sm::launch(sm::nccl_threads{ranks},
                 [&](auto& world) { run_bodies(world, engine, ranks > 4 ? 11 : 3); });
    } catch (std::exception const& error) {
      report(engine, error.what());
    }
  }
  if (devices > 1) {
    report("nccl, threads: one throws while the others wait for the device",
           expect_error<std::runtime_error>("the loss is NaN", [&] {
             sm::launch(sm::nccl_threads{devices}, [](auto& world) {
               test::OwnStream const stream;
               if (world.rank() == 0) {
                 throw std::runtime_error("the loss is NaN");
               }
               exchange_once(world, stream);
               stream.get().synchronize();
               world.barrier();
             });
           }));
  }
  report("nccl, more threads than GPUs are refused, naming the options",
         expect_error<sm::InvalidArgument>("threads_on_devices", [&] {
           sm::launch(sm::nccl_threads{devices + 1}, [](auto&) {});
         }));
}

/// Ranks that do not do the same, as processes.
void test_disagreeing_processes() {
  for (std::size_t pair = 0; pair < 12; ++pair) {
    run_processes("nccl, 2 processes that do not do the same, pair " + std::to_string(pair), 2,
                  [pair] { return test::nccl_disagreement_of_processes(pair); });
  }
}

/// The same as threads. Each pair takes about a second: communicators are made, aborted and left anew. So each action meets
/// one other, and a third of them with all GPUs; SHARDMESH_NCCL_PAIRS says how many others.
void test_disagreeing_threads(int devices) {
  char const* const pairs = std::getenv("SHARDMESH_NCCL_PAIRS");
  std::size_t const each = pairs == nullptr ? 1 : std::strtoul(pairs, nullptr, 10);
  for (int const ranks : std::set<int>{2, devices}) {
    if (ranks <= devices && ranks > 1) {
      auto const result = test::nccl_disagreements_of_threads(ranks, each, ranks == 2 ? 1 : 3);
      report("nccl, " + std::to_string(ranks) + " threads that do not do the same, " +
                 std::to_string(result.pairs) + " cases, error after " +
                 std::to_string(result.longest.count()) + " ms at most",
             result.first_wrong);
    }
  }
}

}  // namespace

/// Arguments: parts to run, of "processes", "disagreements" and "threads"; none: all of them.
int main(int argc, char** argv) {
  auto const wanted = [&](std::string const& part) {
    return argc == 1 || std::find(argv + 1, argv + argc, part) != argv + argc;
  };
  int const devices = count_devices();
  if (devices == 0) {
    std::puts("SKIP: no usable GPU on this machine");
    return 77;
  }
  std::printf("%d device(s)\n", devices);
  if (wanted("processes")) {
    test_processes(devices);
  }
  if (wanted("disagreements")) {
    test_disagreeing_processes();
    test_disagreeing_threads(devices);  // from here on this process uses CUDA itself
  }
  if (wanted("threads")) {
    test_threads(devices);
  }
  std::printf("%s\n", failures == 0 ? "all ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}
