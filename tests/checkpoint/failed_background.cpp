// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A save in the background that fails is told to somebody, whether anybody waits for it or not.
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <string>
#include <system_error>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"
#include "../support/sanitizers.hpp"

namespace failed_background_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.failed_background");

namespace {

sm::StateDict state_of(int value) {
  sm::StateDict dict;
  dict.insert("step", sm::Value(value));
  return dict;
}

/// A state that rank 1 cannot save.
template <class World>
sm::StateDict bad_state(World const& world) {
  sm::StateDict dict = state_of(2);
  if (world.rank() == 1) {
    dict.insert("odd", sm::Value(sm::Value::List{sm::Value(sm::Value::Opaque{})}));
  }
  return dict;
}

template <class World>
int held(World const& world, std::string const& directory) {
  sm::StateDict dict = state_of(-1);
  sm::load(world, directory, dict);
  world.barrier();
  sm::Value const value = dict.at("step").plain();
  return static_cast<int>(*value.template get<sm::index_t>());
}

/// What is written to the error stream while `part` runs.
template <class Part>
std::string error_stream(std::string const& file, Part part) {
  std::fflush(stderr);
  int const before = ::dup(2);
  std::FILE* const to = std::fopen(file.c_str(), "w");
  ::dup2(::fileno(to), 2);
  part();
  std::fflush(stderr);
  ::dup2(before, 2);
  ::close(before);
  std::fclose(to);
  return test::slurp(file);
}

/// The stack of threads that are started.
class StackSize {
 public:
  StackSize() {
    ::pthread_getattr_default_np(&attributes_);
    ::pthread_attr_getstacksize(&attributes_, &before_);
  }
  StackSize(StackSize const&) = delete;
  StackSize& operator=(StackSize const&) = delete;
  ~StackSize() { ::pthread_attr_destroy(&attributes_); }
  void set(std::size_t bytes) const {
    pthread_attr_t changed = attributes_;
    ::pthread_attr_setstacksize(&changed, bytes);
    ::pthread_setattr_default_np(&changed);
  }
  void restore() const { set(before_); }

 private:
  pthread_attr_t attributes_{};
  std::size_t before_ = 0;
};

/// Waits until a save has ended, without asking how.
void until_finished(sm::Saving const& saving) {
  while (!saving.progress().finished) {
    ::usleep(100);
  }
}

}  // namespace

TEST_CASE("the next save tells of one that has failed, once, on every rank") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  for (int const waits : {-1, 0, 1}) {  // the rank that has heard of it
    sm::launch(sm::threads{2}, [&](auto& world) {
      sm::AsyncSaver saver(world);
      saver.save(run, state_of(1)).wait();
      sm::Saving const failing = saver.save(run, bad_state(world));
      if (world.rank() == waits) {
        CHECK_THROWS(failing.wait());
      }
      std::string said;
      std::string inner;
      try {
        static_cast<void>(saver.save(run, state_of(3)));
      } catch (sm::Error const& error) {
        said = error.what();
        try {
          std::rethrow_if_nested(error);
        } catch (sm::Error const& nested) {
          inner = nested.what();
        }
      }
      CAPTURE(said);
      CHECK(said.starts_with("shardmesh::AsyncSaver::save: the save to " + run +
                             " in the background has failed: "));
      CHECK(said.find("opaque value") != said.npos);
      CHECK(inner.find("opaque value") != inner.npos);
      CHECK(held(world, run) == 1);
      saver.save(run, state_of(4)).wait();  // it was told
      CHECK(held(world, run) == 4);
    });
  }
}

TEST_CASE("a failure that all ranks have waited for is not told again") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::AsyncSaver saver(world);
    CHECK_THROWS(saver.save(scratch / "run", bad_state(world)).wait());
    saver.save(scratch / "run", state_of(3)).wait();
    CHECK(held(world, scratch / "run") == 3);
  });
}

TEST_CASE("a saver that ends writes of a failure that nobody has heard of") {
  test::Scratch const scratch;
  auto const said = [&](bool waits) {
    return error_stream(scratch / "log", [&] {
      sm::launch(sm::threads{2}, [&](auto& world) {
        sm::AsyncSaver saver(world);
        sm::Saving const saving = saver.save(scratch / "run", bad_state(world));
        if (waits) {
          CHECK_THROWS(saving.wait());
        }
      });
    });
  };
  std::string const line = said(false);
  CHECK(line.starts_with("shardmesh::AsyncSaver: the save to " + (scratch / "run")));
  CHECK(line.find("rank 1 failed: ") != line.npos);
  CHECK(line.find('\n') == line.size() - 1);
  CHECK(said(true).empty());
}

TEST_CASE("on_failure hears of each failure on every rank") {
  test::Scratch const scratch;
  std::atomic<int> calls{0};
  std::string const log = error_stream(scratch / "log", [&] {
    sm::launch(sm::threads{2}, [&](auto& world) {
      std::string directory;
      std::string what;
      sm::AsyncOptions options;
      options.on_failure = [&](std::string const& where, std::exception_ptr error) {
        ++calls;
        directory = where;
        what = test::error_of<sm::Error>([&] { std::rethrow_exception(error); });
      };
      sm::AsyncSaver saver(world, options);
      sm::Saving const saving = saver.save(scratch / "run", bad_state(world));
      until_finished(saving);
      CHECK(directory == scratch / "run");
      CHECK(what.find("opaque value") != what.npos);
      saver.save(scratch / "run", state_of(3)).wait();  // was told
      CHECK(held(world, scratch / "run") == 3);
      CHECK_THROWS(saving.wait());  // whoever asks hears it all the same
      static_cast<void>(saver.save(scratch / "run", bad_state(world)));
    });
  });
  CHECK(calls == 4);
  CHECK(log.empty());
  // One that throws has not heard it.
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::AsyncOptions options;
    options.on_failure = [](std::string const&, std::exception_ptr) { throw 1; };
    sm::AsyncSaver saver(world, options);
    static_cast<void>(saver.save(scratch / "run", bad_state(world)));
    CHECK_THROWS_WITH_AS(static_cast<void>(saver.save(scratch / "run", state_of(4))),
                         doctest::Contains("in the background has failed"), sm::Error);
  });
}

TEST_CASE("ranks that save to other directories in the background hear it at once") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::AsyncSaver saver(world);
    std::string const own = scratch / std::to_string(world.rank());
    CHECK_THROWS_WITH_AS(static_cast<void>(saver.save(own, state_of(1))),
                         doctest::Contains("rank 1 has directory"), sm::MismatchError);
  });
  CHECK(sm::PosixStorage::list(scratch / "").empty());
}

TEST_CASE("managers tell of a save in the background that has failed") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::CheckpointManager manager(world, scratch / "run", {.last = 2});
    sm::AsyncSaver saver(world);
    for (int step = 1; step <= 3; ++step) {
      manager.save(saver, step, state_of(step)).wait();
      manager.note_metric(step, 0.5);
      manager.tidy();
    }
    CHECK(manager.list().size() == 2);
    CHECK(manager.latest()->metric == 0.5);
    auto const tells = [&](auto use) {
      static_cast<void>(manager.save(saver, 4, bad_state(world)));
      CHECK(test::error_of<sm::Error>(use).find("opaque value") != std::string::npos);
    };
    tells([&] { manager.tidy(); });
    tells([&] { manager.note_metric(4, 1.0); });
    tells([&] { manager.save(5, state_of(5)); });
    tells([&] { static_cast<void>(manager.save(saver, 5, state_of(5))); });
    CHECK(manager.latest()->step == 3);
    std::string const none = test::error_of<sm::Error>([&] { manager.note_metric(4, 1.0); });
    CHECK(none.find("there is no checkpoint of step 4") != none.npos);
    CHECK_THROWS_WITH_AS(static_cast<void>(manager.save(saver, 2, state_of(2))),
                         doctest::Contains("is older than the newest"), sm::Error);
    manager.save(5, state_of(5));  // nothing is told twice
    CHECK(manager.latest()->step == 5);
  });
}

TEST_CASE(
    "a rank that can start no thread is named by all, nothing is saved, and the next save works" *
    doctest::skip(!SHARDMESH_TEST_MAY_FORK || test::sanitized)) {
  test::Scratch const scratch;
  std::string const path = scratch / "run";
  CHECK(sm::spawn_processes(3, [&path] {
          std::string problem = "no launch";
          sm::launch(sm::environment{}, [&](auto& world) {
            sm::AsyncSaver saver(world);
            sm::save(world, path, state_of(1));
            StackSize const stack;
            if (world.rank() == 1) {
              stack.set(std::size_t{1} << 46);  // of a thread: nobody has so many addresses
            }
            std::string words;
            if (world.rank() == 1) {
              words = test::error_of<std::system_error>(
                  [&] { static_cast<void>(saver.save(path, state_of(2))); });
            } else {
              words = test::error_of<sm::RankFailed>(
                  [&] { static_cast<void>(saver.save(path, state_of(2))); });
            }
            stack.restore();
            problem = words == "no error" ? "nothing was said; " : "";
            if (world.rank() != 1 && words.find("rank 1 failed: ") == std::string::npos) {
              problem += words;
            }
            problem += held(world, path) == 1 ? "" : "something was saved; ";
            saver.save(path, state_of(3)).wait();
            problem += held(world, path) == 3 ? "" : "the next save did not work; ";
          });
          std::fputs(problem.c_str(), stderr);
          return problem.empty() ? 0 : 1;
        }) == std::vector<int>(3, 0));
}

TEST_SUITE_END();

}  // namespace failed_background_test
