// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/spawn.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <shardmesh/comm/environment.hpp>

#include "ranks.hpp"

namespace spawn_test {

namespace sm = shardmesh;

using test::milliseconds;
using Status = std::vector<int>;

namespace {

int my_rank() {
  return sm::read_environment().rank;
}

void sleep_ms(int ms) {
  std::this_thread::sleep_for(milliseconds(ms));
}

}  // namespace

TEST_SUITE_BEGIN("comm.spawn" * doctest::skip(!SHARDMESH_TEST_MAY_FORK));

TEST_CASE("spawn: exit statuses come back by rank") {
  CHECK(sm::spawn_processes(1, [] { return 0; }) == Status{0});
  CHECK(sm::spawn_processes(4, [] { return my_rank() * 10; }) == Status{0, 10, 20, 30});
  CHECK(sm::spawn_processes(0, [] { return 1; }).empty());
}

TEST_CASE("spawn: each process finds torchrun's variables") {
  auto const status = sm::spawn_processes(3, [] {
    sm::Environment const e = sm::read_environment();
    bool const good = e.launcher == "torchrun" && e.size == 3 && e.local_rank == e.rank &&
                      e.local_size == 3 && e.address == "127.0.0.1" && e.port > 0;
    return good ? 40 + e.rank : 1;
  });
  CHECK(status == Status{40, 41, 42});
  CHECK(std::getenv("LOCAL_WORLD_SIZE") == nullptr);
}

TEST_CASE("spawn: a signal is 128 and its number") {
  auto const status = sm::spawn_processes(3, [] {
    if (my_rank() > 0) {
      std::raise(my_rank() == 1 ? SIGUSR1 : SIGKILL);
    }
    return 0;
  });
  CHECK(status == Status{0, 128 + SIGUSR1, 128 + SIGKILL});
}

TEST_CASE("spawn: once a process has failed, the others are killed after the grace") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  Status status;
  auto const elapsed = test::time_of([&] {
    status = sm::spawn_processes(
        3,
        [ends] {
          pid_t failed = ::getpid();
          if (my_rank() == 0) {
            return ::write(ends[1], &failed, sizeof(failed)) == sizeof(failed) ? 5 : 1;
          }
          bool const known = my_rank() == 1 && ::read(ends[0], &failed, sizeof(failed)) > 0;
          // Rank 1 ends once the failure has been seen, rank 2 never by itself.
          while (!known || ::kill(failed, 0) == 0) {
            sleep_ms(1);
          }
          return 0;
        },
        2);
  });
  ::close(ends[0]);
  ::close(ends[1]);
  CHECK(status == Status{5, 0, 128 + SIGKILL});
  CHECK(elapsed >= milliseconds(2000));
}

TEST_CASE("spawn: as long as none fails, nobody is killed") {
  auto const status = sm::spawn_processes(
      2,
      [] {
        sleep_ms(my_rank() * 200);
        return 0;
      },
      0);
  CHECK(status == Status{0, 0});
}

TEST_CASE("spawn: a body that throws ends its process with status 1") {
  std::string const name = "spawn: a body that throws";
  auto const status = sm::spawn_processes(2, [&name]() -> int {
    std::fclose(stderr);  // what it would say is no news here
    if (my_rank() == 1) {
      throw 42;
    }
    throw std::runtime_error(name);
  });
  CHECK(status == Status{1, 1});
}

TEST_CASE("spawn: other children of the caller stay the caller's") {
  pid_t const mine = ::fork();
  REQUIRE(mine >= 0);
  if (mine == 0) {
    std::_Exit(7);
  }
  sleep_ms(50);
  CHECK(sm::spawn_processes(2, [] { return 3; }) == Status{3, 3});
  int raw = 0;
  REQUIRE(::waitpid(mine, &raw, 0) == mine);
  CHECK(WEXITSTATUS(raw) == 7);
}

TEST_CASE("spawn: what the caller has buffered is written once") {
  std::FILE* const file = std::tmpfile();
  REQUIRE(file != nullptr);
  std::fputs("once\n", file);
  CHECK(sm::spawn_processes(3, [] { return 0; }) == Status{0, 0, 0});
  std::rewind(file);
  char text[64] = {};
  std::size_t const read = std::fread(text, 1, sizeof(text), file);
  std::fclose(file);
  CHECK(std::string(text, read) == "once\n");
}

TEST_CASE("spawn: where SIGCHLD is ignored there is an error, not an endless wait") {
  auto const before = std::signal(SIGCHLD, SIG_IGN);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::spawn_processes(1, [] { return 0; })),
                       doctest::Contains("SIGCHLD must not be ignored"), sm::CommError);
  std::signal(SIGCHLD, before);
}

TEST_SUITE_END();

}  // namespace spawn_test
