// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What the four ranks of shrink.cpp do until one of them ends, what each keeps, and how one ends as
// a thread and as a process.

#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/processes.hpp>
#include <shardmesh/shardmesh.hpp>
#ifdef EXAMPLE_WITH_NCCL
#include <shardmesh/nccl.hpp>

#include "dense_math_cuda.hpp"
#endif

#include "resume.hpp"

namespace shrink {

namespace sm = shardmesh;

constexpr int steps = 12;

struct Case {
  std::string engine = "processes";
  int ends = 3;  ///< the rank that does
  int step = 6;  ///< in which it does
  std::string folder;
};

/// A folder that goes with this.
struct Scratch {
  explicit Scratch(std::string path) : folder(std::move(path)) {}
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }

  std::string folder;
};

/// What a rank keeps of its last two steps: when a rank is lost, others may be one step ahead.
struct Kept {
  int done = 0;
  std::array<sm::StateDict, 2> states;

  void keep(int step, sm::StateDict const& state) {
    done = step;
    states[static_cast<std::size_t>(step % 2)] = sm::offloaded(state);
  }
};

/// Where ranks that talk by NCCL have their tensors; others have them in host memory.
template <class Comm>
struct SpaceOf {
  using type = sm::HostMemory;
};
#ifdef EXAMPLE_WITH_NCCL
template <class Control>
struct SpaceOf<sm::NcclCommunicator<Control>> {
  using type = sm::CudaMemory;
};
#endif

template <class Mesh>
using Trainer = resume::Trainer<typename SpaceOf<typename Mesh::communicator_type>::type, Mesh>;

/// Trains on a mesh from step `first` on, keeping states.
template <class Mesh, class Before>
void train(Trainer<Mesh>& trainer, int first, Kept& kept, Before before) {
  kept.keep(first, trainer.state());
  for (int step = first + 1; step <= steps; ++step) {
    before(step);
    trainer.step(step);
    kept.keep(step, trainer.state());
  }
}

/// The job on four ranks, until one of them ends.
template <class Comm, class End>
void train_on_four(Comm const& world, Case const& what, Kept& kept, End end) {
  auto const mesh = sm::device_mesh(world, {2, 2}, {"replicate", "shard"});
  Trainer<std::remove_const_t<decltype(mesh)>> trainer(mesh, false);
  trainer.load(world, EXAMPLE_DATA "/hsdp_checkpoint");
  train(trainer, 0, kept, [&](int step) {
    if (step == what.step) {
      sm::save(world, what.folder + "/before", trainer.state());  // for the proof alone
      if (world.rank() == what.ends) {
        end();
      }
    }
  });
}

inline void say(Case const& what, std::uint64_t value, char const* how) {
  std::printf("three ranks, step %d to %d, %s: state %016llx\n", what.step - 1, steps, how,
              static_cast<unsigned long long>(value));
}

/// Ranks are threads: one throws, and the others hear of it.
template <class GoOn>
bool as_threads(Case const& what, GoOn go_on) {
  std::array<Kept, 4> kept;
  try {
    sm::launch(sm::threads{4}, [&](auto& world) {
      train_on_four(world, what, kept[static_cast<std::size_t>(world.rank())],
                    [] { throw sm::InvalidArgument("this rank ends"); });
    });
  } catch (sm::Error const& error) {
    std::printf("%s\n", error.what());
  }
  bool equal = false;
  sm::launch(sm::threads{3}, [&](auto& world) {
    int const before = world.rank() + (world.rank() >= what.ends ? 1 : 0);
    auto const memory = go_on(world, &kept[static_cast<std::size_t>(before)]);
    auto const file = go_on(world, nullptr);
    if (world.rank() == 0) {
      say(what, memory, "from memory");
      say(what, file, "from a checkpoint of four");
      equal = memory == file;
    }
  });
  return equal;
}

/// Makes this process rank `rank` of `size`; its place on its host, and so its GPU, stays what it is.
inline void become(int rank, int size) {
  ::setenv("RANK", std::to_string(rank).c_str(), 1);
  ::setenv("WORLD_SIZE", std::to_string(size).c_str(), 1);
}

/// Ranks are processes: one is killed, and the others meet again.
template <class Engine, class GoOn>
bool as_processes(Engine const& engine, Case const& what, GoOn go_on) {
  auto const statuses = sm::spawn_processes(
      4,
      [&] {
        int const rank = sm::read_environment().rank;
        Kept kept;
        try {
          sm::launch(engine, [&](auto& world) {
            train_on_four(world, what, kept, [] { std::raise(SIGKILL); });
          });
        } catch (sm::RankFailed const& failed) {
          std::printf("rank %d: %s\n", rank, failed.what());
          become(rank - (rank > failed.rank() ? 1 : 0), 3);
        }
        bool equal = false;
        sm::launch(engine, [&](auto& world) {
          auto const memory = go_on(world, &kept);
          auto const file = go_on(world, nullptr);
          if (world.rank() == 0) {
            say(what, memory, "from memory");
            say(what, file, "from a checkpoint of four");
          }
          equal = memory == file;
        });
        return equal ? 0 : 1;
      },
      120);
  int failed = 0;
  for (int const status : statuses) {
    failed += status == 0 ? 0 : 1;
  }
  return failed == 1 && statuses[static_cast<std::size_t>(what.ends)] == 128 + SIGKILL;
}

/// @throws sm::InvalidArgument, which says how it is used.
inline Case read_case(int argc, char** argv) {
  Case what;
  what.engine = argc > 1 ? argv[1] : what.engine;
  what.ends = argc > 2 ? std::atoi(argv[2]) : what.ends;
  what.step = argc > 3 ? std::atoi(argv[3]) : what.step;
  bool const known =
      what.engine == "threads" || what.engine == "processes" || what.engine == "gpus";
  if (!known || what.ends < 0 || what.ends > 3 || what.step < 1 || what.step > steps) {
    throw sm::InvalidArgument(sm::detail::concat(
        "usage: [threads|processes|gpus] [RANK 0 to 3] [STEP 1 to ", std::to_string(steps), "]"));
  }
  std::string folder = "/tmp/shardmesh-shrink-XXXXXX";
  what.folder = ::mkdtemp(folder.data());
  return what;
}

/// Asked by a process of its own: one that has looked at GPUs cannot be forked any more.
inline bool lacks_gpu([[maybe_unused]] Case const& what) {
#ifdef EXAMPLE_WITH_NCCL
  return what.engine == "gpus" && sm::spawn_processes(1, [] {
                                    return sm::cuda::device_count() > 0 ? 0 : 1;
                                  }) != std::vector<int>{0};
#else
  return false;
#endif
}

template <class GoOn>
bool run_on_engine(Case const& what, GoOn go_on) {
  constexpr std::chrono::seconds timeout(20);
  if (what.engine == "threads") {
    return as_threads(what, go_on);
  }
  if (what.engine == "processes") {
    return as_processes(sm::environment{timeout}, what, go_on);
  }
#ifdef EXAMPLE_WITH_NCCL
  return as_processes(sm::nccl_environment{.timeout = timeout}, what, go_on);
#else
  throw sm::InvalidArgument(
      "built without NCCL; shrink_nccl is built with it where `meson setup` finds it");
#endif
}

/// Four ranks until one ends, then `go_on(world, kept)` on three: with what a rank has kept, and
/// with nullptr.
/// @returns whether both come to the same number.
template <class GoOn>
bool run(Case const& what, GoOn go_on) {
  return run_on_engine(what, go_on);
}

}  // namespace shrink
