// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Two jobs that save to one directory, one of which may be stuck or killed: one saves at a time, and what is
// there is whole.
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/storage/save_lock.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"
#include "../support/killed.hpp"
#include "../support/sanitizers.hpp"
#include "damage.hpp"

namespace two_savers_test {

namespace sm = shardmesh;

using sm::PosixStorage;
using sm::detail::SaveLock;
using test::failure_of;

TEST_SUITE_BEGIN("checkpoint.two_savers");

namespace {

sm::StateDict state_of(int value) {
  sm::StateDict dict;
  for (int i = 0; i < 6; ++i) {
    sm::Tensor<int> tensor({40});
    std::fill(tensor.span().begin(), tensor.span().end(), value);
    dict.insert("w" + std::to_string(i), tensor);
  }
  dict.insert("step", sm::Value(value));
  return dict;
}

void save(std::string const& directory, int value) {
  sm::launch(sm::threads{2}, [&](auto& world) { sm::save(world, directory, state_of(value)); });
}

/// The value that a checkpoint holds, every element of it, with all checksums.
int held(std::string const& directory) {
  sm::with_catalog(directory, [](auto& catalog) { CHECK(sm::verify(catalog).damage.empty()); });
  int value = -1;
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::StateDict dict = state_of(-1);
    sm::load(world, directory, dict);
    sm::Value const step = dict.at("step").plain();
    value = static_cast<int>(*step.get<sm::index_t>());
    CHECK(sm::difference(dict, state_of(value)).empty());
  });
  return value;
}

}  // namespace

TEST_CASE("a save beside one that is going on is refused, and changes nothing") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  save(run, 1);
  test::fs::create_directory_symlink("run", scratch / "latest");
  {
    SaveLock const other(run, "other");
    for (std::string const& path : {run, run + "/", scratch / "latest"}) {
      auto const refused = failure_of([&] { save(path, 2); });
      CHECK(refused.says("another save to "));
      CHECK(refused.says("process " + std::to_string(::getpid()) + " on "));
      CHECK(refused.says("end it"));
    }
    auto const model = failure_of([&] {
      sm::launch(sm::threads{1}, [&](auto& world) {
        sm::save_safetensors_sharded(world, run, state_of(2), 100, sm::Existing::replace);
      });
    });
    CHECK(model.kind == "IoError");
    CHECK(model.says("another save to " + run));
    save(scratch / "elsewhere", 5);
    CHECK(held(run) == 1);
    CHECK(PosixStorage::exists(scratch / ".run.save-lock"));
  }
  save(run, 2);
  CHECK(held(run) == 2);
  CHECK(PosixStorage::list(scratch / "").size() == 3);
}

TEST_CASE("one file of safetensors is locked like a directory") {
  test::Scratch const scratch;
  std::string const path = scratch / "m.safetensors";
  SaveLock const other(path, "other");
  auto const alone = failure_of([&] { sm::save_safetensors(path, state_of(1)); });
  CHECK(alone.kind == "IoError");
  auto const together = failure_of([&] {
    sm::launch(sm::threads{1},
               [&](auto& world) { sm::save_safetensors(world, path, state_of(1)); });
  });
  CHECK(together.says("another save to " + path));
  CHECK_FALSE(PosixStorage::exists(path));
}

TEST_CASE("the file of a lock that nobody holds is taken over and removed") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  test::spit(SaveLock::path_of(run), "process 1 on nowhere");
  save(run, 1);
  CHECK(PosixStorage::list(scratch / "") == std::vector<std::string>{"run"});
  CHECK(SaveLock::path_of("run") == ".run.save-lock");
  CHECK(SaveLock::target_of(".run.save-lock") == "run");
  for (char const* const other : {"run", ".run", "run.save-lock", ".save-lock", ""}) {
    CHECK(SaveLock::target_of(other).empty());
  }
}

TEST_CASE("managers leave what a save that is going on writes, and remove what others have left") {
  test::Scratch const scratch;
  std::string const root = scratch / "run";
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::CheckpointManager manager(world, root, {.last = 5});
    manager.save(1, state_of(1));
    PosixStorage::make_directory(root + "/step-2.tmp-17");
    PosixStorage::make_directory(root + "/step-3.tmp-17");
    test::spit(SaveLock::path_of(root + "/step-3"), "");
    {
      SaveLock const other(root + "/step-2", "other");
      sm::CheckpointManager const second(world, root, {.last = 5});
      CHECK(PosixStorage::exists(root + "/step-2.tmp-17"));
      CHECK_FALSE(PosixStorage::exists(root + "/step-3.tmp-17"));
      CHECK_FALSE(PosixStorage::exists(SaveLock::path_of(root + "/step-3")));
      CHECK(failure_of([&] { manager.save(2, state_of(2)); }).says("another save to "));
      CHECK(manager.list().size() == 1);
    }
    sm::CheckpointManager const third(world, root, {.last = 5});
    CHECK(PosixStorage::list(root) == std::vector<std::string>{"step-1"});
  });
}

TEST_CASE("a directory with the rest of a checkpoint is saved to; one without any is not") {
  test::Scratch const scratch;
  for (char const* const rest : {"__0_0.distcp", ".metadata.tmp", ".shardmesh"}) {
    std::string const run = scratch / (std::string("run") + rest);
    PosixStorage::make_directory(run);
    test::spit(run + "/" + rest, "half");
    test::spit(run + "/notes.txt", "mine");
    save(run, 3);
    CHECK(held(run) == 3);
    CHECK(test::slurp(run + "/notes.txt") == "mine");
  }
  std::string const foreign = scratch / "foreign";
  PosixStorage::make_directories(foreign +
                                 "/__0_0.distcp");  // a directory of that name is nobody's data
  CHECK(failure_of([&] { save(foreign, 3); }).says("exists and is no checkpoint"));
}

TEST_CASE("what another job has taken away is not published") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  save(run, 1);
  for (bool const gone : {false, true}) {
    std::string temporary = scratch / "run.tmp-5";
    PosixStorage::make_directory(temporary);
    test::spit(temporary + "/__0_0.distcp", "four");
    if (gone) {
      test::fs::remove(temporary + "/__0_0.distcp");
    }
    auto const failure = failure_of(
        [&] { sm::detail::commit_save(temporary, run, {}, {{"__0_0.distcp", 5, 0}}, {}); });
    CHECK(failure.kind == "IoError");
    CHECK(failure.says("__0_0.distcp"));
    PosixStorage::remove_all(temporary);
    CHECK(held(run) == 1);
  }
}

#if SHARDMESH_TEST_MAY_FORK

namespace {

/// A job that saves values of its own again and again, and acknowledges each.
struct Job {
  pid_t process = -1;
  int descriptor = -1;
};

Job start(std::string const& directory, int first) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::cout.flush();
  std::fflush(nullptr);
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    for (int value = first;; ++value) {
      int told = value;
      try {
        save(directory, value);
      } catch (sm::Error const& error) {
        told = std::string_view(error.what()).find("another save to ") != std::string_view::npos
                   ? -1
                   : -2;
        if (told == -2) {
          std::fprintf(stderr, "%s\n", error.what());
        }
      }
      if (!test::acknowledge(ends[1], told)) {
        ::_exit(0);
      }
    }
  }
  ::close(ends[1]);
  return {child, ends[0]};
}

void kill_job(Job& job) {
  ::kill(job.process, SIGKILL);
  ::waitpid(job.process, nullptr, 0);
  ::close(job.descriptor);
  job.process = -1;
}

/// SHARDMESH_KILLS asks for more.
int kills_wanted() {
  char const* const wanted = std::getenv("SHARDMESH_KILLS");
  return wanted == nullptr ? 12 : std::atoi(wanted);
}

}  // namespace

TEST_CASE("two jobs save to one directory, one of them is killed again and again") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  std::mt19937 random(7);
  int saved = 0;
  int refused = 0;
  int const kills = kills_wanted();
  Job lasting = start(run, 1'000'000);
  for (int i = 0; i < kills; ++i) {
    Job victim = start(run, 1000 * i);
    // Both have done something before the kill.
    for (Job const& job : {lasting, victim}) {
      int const told = test::acknowledged_step(job.descriptor);
      CHECK(told != -2);
      ++(told == -1 ? refused : saved);
    }
    ::usleep(static_cast<useconds_t>(random() % 3000));
    kill_job(victim);
    if (PosixStorage::exists(run)) {
      // The other job goes on saving: it may replace what is verified, so this loads only.
      sm::launch(sm::threads{1}, [&](auto& world) {
        sm::StateDict dict = state_of(-1);
        sm::load(world, run, dict);
        sm::Value const step = dict.at("step").plain();
        CHECK(sm::difference(dict, state_of(static_cast<int>(*step.get<sm::index_t>()))).empty());
      });
    }
  }
  kill_job(lasting);
  CHECK(held(run) >= 0);
  save(run, 7);
  CHECK(held(run) == 7);
  CHECK(PosixStorage::list(scratch / "") == std::vector<std::string>{"run"});
  MESSAGE(kills << " kills, " << saved << " saves and " << refused << " refusals seen");
  CHECK(saved > 0);
}

TEST_CASE("a stuck save keeps others away until it is killed") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  save(run, 1);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  pid_t const stuck = ::fork();
  REQUIRE(stuck >= 0);
  if (stuck == 0) {
    SaveLock const lock(run, "stuck");
    PosixStorage::make_directory(run + ".tmp-1");
    test::acknowledge(ends[1], 1);
    ::pause();
    ::_exit(0);
  }
  CHECK(test::acknowledged_step(ends[0]) == 1);
  ::kill(stuck, SIGSTOP);
  CHECK(failure_of([&] { save(run, 2); }).says("process " + std::to_string(stuck) + " on "));
  CHECK(held(run) == 1);
  ::kill(stuck, SIGKILL);
  ::waitpid(stuck, nullptr, 0);
  ::close(ends[0]);
  ::close(ends[1]);
  save(run, 2);
  CHECK(held(run) == 2);
  CHECK(PosixStorage::list(scratch / "") == std::vector<std::string>{"run"});
}

#endif

TEST_SUITE_END();

}  // namespace two_savers_test
