// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Killed in the middle of a save: the old checkpoint or the new one loads and verifies, never neither,
// never a mix.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/checkpoints.hpp"
#include "../support/killed.hpp"
#include "../support/sanitizers.hpp"

namespace crash_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.crash");

#if SHARDMESH_TEST_MAY_FORK

namespace {

/// Twelve tensors and a plain value that all hold the number of the step.
template <class Mesh>
sm::StateDict state_of(Mesh const& mesh, float step) {
  sm::StateDict dict;
  for (int i = 0; i < 12; ++i) {
    sm::Tensor<float> whole(sm::Shape{7 + i, 9});
    std::fill(whole.span().begin(), whole.span().end(), step);
    dict.insert("layer" + std::to_string(i),
                sm::distribute(whole, mesh, sm::placements<sm::Shard<0>>, sm::DataSource::own));
  }
  dict.insert("step", sm::Value(step));
  return dict;
}

enum class How { foreground, background, safetensors };

/// What is killed: ranks that are threads or processes, and how they save.
struct Victim {
  bool processes = false;
  How how = How::foreground;
};

template <class World>
void save_for_ever(
    World const& world, std::string const& directory, int first, How how, int acknowledge) {
  auto const mesh = sm::device_mesh<1>(world, {world.size()});
  sm::AsyncSaver saver(world);
  for (int step = first;; ++step) {
    auto const state = state_of(mesh, static_cast<float>(step));
    if (how == How::background) {
      saver.save(directory, state).wait();
    } else if (how == How::safetensors) {
      sm::save_safetensors(world, directory, state);
    } else {
      sm::save(world, directory, state);
    }
    if (world.rank() == 0 && !test::acknowledge(acknowledge, step)) {
      return;
    }
  }
}

/// What the process group does that is killed.
auto saver(std::string const& directory, int first, Victim victim) {
  return [=](int acknowledge) {
    if (victim.processes) {
      static_cast<void>(sm::spawn_processes(2, [&] {
        sm::launch(sm::environment{}, [&](auto& world) {
          save_for_ever(world, directory, first, victim.how, acknowledge);
        });
        return 0;
      }));
    } else {
      sm::launch(sm::threads{3}, [&](auto& world) {
        save_for_ever(world, directory, first, victim.how, acknowledge);
      });
    }
  };
}

/// The step that a checkpoint holds, checked to be the same in every element.
float step_held(std::string const& directory) {
  sm::with_catalog(directory, [](auto& catalog) { CHECK(sm::verify(catalog).damage.empty()); });
  float held = -1;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::StateDict dict = state_of(mesh, -1);
    sm::CheckpointReport const report =
        sm::load_any(world, directory, dict, {.missing = sm::KeyPolicy::collect});
    auto const first = dict.at("layer0").tensor().local_bytes();
    float step = -1;
    std::memcpy(&step, first.data(), sizeof(step));
    if (!report.missing.empty()) {  // safetensors have no plain values
      dict.set("step", sm::Value(step));
    }
    CHECK(sm::difference(dict, state_of(mesh, step)).empty());
    if (world.rank() == 0) {
      held = step;
    }
  });
  return held;
}

void kill_saves(Victim victim, long kills, unsigned seed) {
  test::Scratch const scratch;
  std::string const directory =
      scratch / (victim.how == How::safetensors ? "model.safetensors" : "checkpoint");
  std::mt19937 random(seed);
  unsigned const longest = test::two_steps(saver(directory, 1, victim));
  for (auto const& entry : test::fs::directory_iterator(scratch / "")) {
    test::fs::remove_all(entry.path());
  }
  int last = 0;
  long in_the_middle = 0;
  for (long i = 0; i < kills || (in_the_middle == 0 && i < 10 * kills); ++i) {
    // One of four is killed while it starts or saves for the first time, the others at work.
    test::Moment const moment{i % 4 == 0 ? 0 : 1, static_cast<unsigned>(random() % longest)};
    int const known = test::kill_in(moment, saver(directory, last + 1, victim)).last;
    int const acknowledged = known == 0 ? last : known;
    if (test::fs::exists(directory)) {
      auto const held = static_cast<int>(step_held(directory));
      CHECK(held >= acknowledged);
      CHECK(held <= acknowledged + 1);
      in_the_middle += sm::PosixStorage::list(scratch / "").size() > 1;
      last = held;
    } else {
      CHECK(acknowledged == 0);
    }
  }
  MESSAGE(kills << " kills, " << in_the_middle << " in the middle of a save, step " << last);
  CHECK(last > 0);
  CHECK(in_the_middle > 0);
  // The next save removes what the last one left.
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const state = state_of(sm::device_mesh<1>(world, {2}), 1);
    if (victim.how == How::safetensors) {
      sm::save_safetensors(world, directory, state);
    } else {
      sm::save(world, directory, state);
    }
  });
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}

/// SHARDMESH_KILLS asks for more.
long kills_wanted() {
  char const* const wanted = std::getenv("SHARDMESH_KILLS");
  return wanted != nullptr ? std::atol(wanted) : test::sanitized ? 12 : 40;
}

}  // namespace

TEST_CASE("SIGKILL at random moments of a save by threads") {
  kill_saves({}, kills_wanted(), 1);
}

TEST_CASE("SIGKILL at random moments of a save by processes") {
  kill_saves({.processes = true}, kills_wanted(), 2);
}

TEST_CASE("SIGKILL at random moments of a save in the background") {
  kill_saves({.how = How::background}, kills_wanted(), 3);
  kill_saves({.processes = true, .how = How::background}, kills_wanted() / 2, 4);
}

TEST_CASE("SIGKILL at random moments of ranks that write one safetensors file") {
  kill_saves({.how = How::safetensors}, kills_wanted(), 5);
  kill_saves({.processes = true, .how = How::safetensors}, kills_wanted() / 2, 6);
}

#else

TEST_CASE("SIGKILL: processes are not forked under TSan") {
  MESSAGE("skipped: TSan does not follow a fork of a program with threads");
}

#endif

TEST_SUITE_END();

}  // namespace crash_test
