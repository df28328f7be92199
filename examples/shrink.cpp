// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// One of four ranks ends in the middle of training; the three others go on with what they have in memory. Hybrid
// sharding keeps every shard twice, so the replica that is still whole is the whole state: it is transferred to a mesh of
// the survivors, without a file.
//
//   shrink [threads|processes] [RANK that ends] [STEP in which it does]
//
// The proof: three ranks that load a checkpoint of that step, written by four, train to the same bits.
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/processes.hpp>
#include <shardmesh/shardmesh.hpp>

#include "support/resume.hpp"

namespace {

namespace sm = shardmesh;

constexpr int steps = 12;

struct Case {
  std::string engine = "processes";
  int ends = 3;  ///< the rank that does
  int step = 6;  ///< in which it does
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

template <class Mesh>
using Trainer = resume::Trainer<sm::HostMemory, Mesh>;

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

/// What the survivors hold, on a mesh of theirs: the replica that lost nothing.
template <class Comm>
sm::StateDict whole_replica(Comm const& world, Case const& what, sm::StateDict const& mine) {
  int const first = what.ends < 2 ? 2 : 0;  // of the ranks of that replica, before
  auto const now = [&](int rank) { return rank > what.ends ? rank - 1 : rank; };
  auto const line = sm::device_mesh<1>(world, {2}, {now(first), now(first + 1)}, {"shard"});
  sm::StateDict state;
  for (sm::StateEntry const& entry : mine) {
    if (!entry.is_tensor() || !entry.tensor().is_distributed()) {
      state.insert(entry.path, entry.value);
      continue;
    }
    sm::Layout const layout(entry.tensor().shape(), {2}, {sm::Shard{0}});
    sm::Tensor<float> part(line.is_member() ? entry.tensor().local_shape() : sm::Shape{0});
    if (line.is_member()) {
      sm::AnyTensor(part).copy_from(entry.tensor());
    }
    state.insert(entry.path,
                 sm::DistTensor<float, std::remove_const_t<decltype(line)>>(line, layout, part));
  }
  return state;
}

/// The job on the three that are left, from memory (`kept`) or from the checkpoint (nullptr).
/// @returns a number that stands for the state at the end.
template <class Comm>
std::uint64_t train_on_three(Comm const& world, Case const& what, Kept* kept) {
  auto const mesh = sm::device_mesh(world, {3}, {"shard"});
  Trainer<std::remove_const_t<decltype(mesh)>> trainer(mesh, false);
  int first = what.step - 1;
  if (kept == nullptr) {
    trainer.load(world, what.folder + "/before");
  } else {
    for (int const done : sm::all_gather_value(world, kept->done)) {
      first = std::min(first, done);
    }
    auto into = trainer.state();
    sm::transfer(
        world, whole_replica(world, what, kept->states[static_cast<std::size_t>(first % 2)]), into);
  }
  Kept later;
  train(trainer, first, later, [](int) {});
  return sm::checksum(world, trainer.state());
}

void say(Case const& what, std::uint64_t value, char const* how) {
  std::printf("three ranks, step %d to %d, %s: state %016llx\n", what.step - 1, steps, how,
              static_cast<unsigned long long>(value));
}

/// Ranks are threads: one throws, and the others hear of it.
std::array<std::uint64_t, 2> as_threads(Case const& what) {
  std::array<Kept, 4> kept;
  try {
    sm::launch(sm::threads{4}, [&](auto& world) {
      train_on_four(world, what, kept[static_cast<std::size_t>(world.rank())],
                    [] { throw sm::InvalidArgument("this rank ends"); });
    });
  } catch (sm::Error const& error) {
    std::printf("%s\n", error.what());
  }
  std::array<std::uint64_t, 2> found{};
  sm::launch(sm::threads{3}, [&](auto& world) {
    int const before = world.rank() + (world.rank() >= what.ends ? 1 : 0);
    auto const memory = train_on_three(world, what, &kept[static_cast<std::size_t>(before)]);
    auto const file = train_on_three(world, what, nullptr);
    if (world.rank() == 0) {
      found = {memory, file};
    }
  });
  return found;
}

/// Ranks are processes: one is killed, and the others meet again.
int as_processes(Case const& what) {
  auto const statuses = sm::spawn_processes(
      4,
      [&] {
        sm::Environment place = sm::read_environment();
        Kept kept;
        try {
          sm::SocketCommunicator const world(place.address, place.port, place.rank, 4,
                                             std::chrono::seconds(20));
          train_on_four(world, what, kept, [] { std::raise(SIGKILL); });
        } catch (sm::RankFailed const& failed) {
          std::printf("rank %d: %s\n", place.rank, failed.what());
          place.rank -= place.rank > failed.rank() ? 1 : 0;
        }
        sm::SocketCommunicator const world(place.address, place.port, place.rank, 3,
                                           std::chrono::seconds(20));
        auto const memory = train_on_three(world, what, &kept);
        auto const file = train_on_three(world, what, nullptr);
        if (world.rank() == 0) {
          say(what, memory, "from memory");
          say(what, file, "from a checkpoint of four");
        }
        return memory == file ? 0 : 1;
      },
      120);
  int failed = 0;
  for (int const status : statuses) {
    failed += status == 0 ? 0 : 1;
  }
  return failed == 1 && statuses[static_cast<std::size_t>(what.ends)] == 128 + SIGKILL ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) try {
  Case what;
  what.engine = argc > 1 ? argv[1] : what.engine;
  what.ends = argc > 2 ? std::atoi(argv[2]) : what.ends;
  what.step = argc > 3 ? std::atoi(argv[3]) : what.step;
  if ((what.engine != "threads" && what.engine != "processes") || what.ends < 0 || what.ends > 3 ||
      what.step < 1 || what.step > steps) {
    std::fprintf(stderr, "usage: shrink [threads|processes] [RANK 0 to 3] [STEP 1 to %d]\n", steps);
    return 2;
  }
  std::string folder = "/tmp/shardmesh-shrink-XXXXXX";
  what.folder = ::mkdtemp(folder.data());
  bool good = false;
  if (what.engine == "threads") {
    auto const [memory, file] = as_threads(what);
    say(what, memory, "from memory");
    say(what, file, "from a checkpoint of four");
    good = memory == file;
  } else {
    good = as_processes(what) == 0;
  }
  sm::PosixStorage::remove_all(what.folder);
  std::printf(good ? "The survivors went on to the same bits.\n"
                   : "The survivors DIFFER, or did not go on.\n");
  return good ? 0 : 1;
} catch (std::exception const& error) {
  std::fprintf(stderr, "shrink: %s\n", error.what());
  return 1;
}
