// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/working.hpp>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>

#include "ranks.hpp"

namespace working_test {

namespace sm = shardmesh;

using sm::Limits;
using sm::Working;
using test::contains;
using test::error_of;
using test::milliseconds;
using test::Texts;

namespace {

struct OnThreads {
  template <class Body>
  static Texts run(int ranks, Limits limits, Body body) {
    Texts errors(static_cast<std::size_t>(ranks));
    sm::launch(sm::threads{ranks, limits}, [&](sm::ThreadsCommunicator& world) {
      errors[static_cast<std::size_t>(world.rank())] = error_of<sm::Error>([&] { body(world); });
    });
    return errors;
  }
};

struct OnSockets {
  template <class Body>
  static Texts run(int ranks, Limits limits, Body body) {
    return test::run_sockets(ranks, limits, body);
  }
};

/// Only the time to make the call is short.
Limits short_call(milliseconds call) {
  Limits limits(test::patience);
  limits.call = call;
  return limits;
}

void sleep(milliseconds time) {
  std::this_thread::sleep_for(time);
}

/// "" if no rank of a run has failed.
std::string first_error(Texts const& errors) {
  return test::first_other(errors, "no error");
}

}  // namespace

TEST_SUITE_BEGIN("comm.working");

TEST_CASE_TEMPLATE("working: a rank that works longer than the timeout is waited for",
                   Engine,
                   OnThreads,
                   OnSockets) {
  for (int const worker : {0, 2}) {  // sockets: the middle of the star, and one of its ends
    CHECK(test::in_time(milliseconds(300), [worker](milliseconds timeout) {
            return first_error(Engine::run(3, short_call(timeout), [&](auto const& world) {
              world.barrier();
              if (world.rank() == worker) {
                Working const work(world, "writes a large file");
                sleep(4 * timeout);
              }
              CHECK(sm::all_gather_value(world, world.rank()) == std::vector<int>{0, 1, 2});
            }));
          }) == "");
  }
}

TEST_CASE_TEMPLATE("working: what does not get any further is given up, with what it says it does",
                   Engine,
                   OnThreads,
                   OnSockets) {
  CHECK(test::in_time(milliseconds(300), [](milliseconds limit) {
          Limits limits(test::patience);
          limits.progress = limit;
          std::atomic<int> waiting{2};
          std::atomic<bool> told{false};
          auto const errors = Engine::run(3, limits, [&](auto const& world) {
            world.barrier();
            if (world.rank() == 2) {
              Working const work(world, "writes\x1b[31m a file");
              test::wait_for(told, limit);
              return;
            }
            std::string const error = error_of<sm::TimeoutError>([&] { world.barrier(); });
            told = --waiting <= 0;
            throw sm::Error(error);
          });
          std::string const words =
              "rank 2 did not arrive: it says that it writes\\x1b[31m a file, and "
              "has got no further for " +
              std::to_string(limit.count()) + " ms";
          return contains(errors[0], words) ? "" : errors[0] + "; " + errors[2];
        }) == "");
}

TEST_CASE_TEMPLATE("working: steps, and a counter, show that work gets further",
                   Engine,
                   OnThreads,
                   OnSockets) {
  for (bool const counts : {false, true}) {
    CHECK(test::in_time(milliseconds(400), [counts](milliseconds limit) {
            Limits limits(test::patience);
            limits.call = limit;
            limits.progress = limit;
            return first_error(Engine::run(2, limits, [&](auto const& world) {
              world.barrier();
              if (world.rank() == 1) {
                std::atomic<std::uint64_t> bytes{0};
                Working work(world, "counts", counts ? &bytes : nullptr);
                for (int step = 0; step < 16; ++step) {
                  sleep(limit / 4);
                  ++bytes;
                  if (!counts) {
                    work.advance();
                  }
                }
              }
              world.barrier();
            }));
          }) == "");
  }
}

TEST_CASE_TEMPLATE("working: after its work a rank has the time of the call, and no more",
                   Engine,
                   OnThreads,
                   OnSockets) {
  CHECK(test::in_time(milliseconds(300), [](milliseconds timeout) {
          std::atomic<bool> told{false};
          auto const errors = Engine::run(2, short_call(timeout), [&](auto const& world) {
            world.barrier();
            if (world.rank() == 1) {
              {
                Working const work(world, "works");
                sleep(2 * timeout);
              }
              test::wait_for(told, timeout);
              return;
            }
            std::string const error = error_of<sm::TimeoutError>([&] { world.barrier(); });
            told = true;
            throw sm::Error(error);
          });
          bool const good = contains(errors[0], "rank 1 did not arrive within " +
                                                    std::to_string(timeout.count()) + " ms");
          return good ? "" : errors[0];
        }) == "");
}

TEST_CASE_TEMPLATE("working: those who wait for one that waits for work wait as well",
                   Engine,
                   OnThreads,
                   OnSockets) {
  CHECK(test::in_time(milliseconds(400), [](milliseconds timeout) {
          return first_error(Engine::run(4, short_call(timeout), [&](auto const& world) {
            auto const pair = world.split(world.rank() < 2 ? -1 : 0, 0);
            auto const line = world.split(world.rank() == 0 ? -1 : 0, 0);
            world.barrier();
            if (world.rank() == 3) {
              Working const work(world, "works");
              sleep(4 * timeout);
            }
            if (pair) {
              pair.barrier();  // rank 2 waits for rank 3,
            }
            if (line) {
              line.barrier();  // rank 1 for ranks 2 and 3, neither of which is in its call,
            }
            world.barrier();  // and rank 0 for all of them
          }));
        }) == "");
}

TEST_CASE_TEMPLATE("working: ranks that wait for each other find an end, though one had work",
                   Engine,
                   OnThreads,
                   OnSockets) {
  auto const errors = Engine::run(3, short_call(milliseconds(300)), [&](auto const& world) {
    auto const pair = world.split(world.rank() == 2 ? -1 : 0, 0);
    if (world.rank() == 2) {
      Working const work(world, "works");
      sleep(milliseconds(600));
    }
    if (world.rank() == 0) {
      pair.barrier();  // rank 1 comes to this after the other
    }
    world.barrier();
    if (world.rank() == 1) {
      pair.barrier();
    }
  });
  CHECK(first_error(errors) != "");
}

TEST_CASE("working: a process that is stopped at its work is not heard from" *
          doctest::skip(!SHARDMESH_TEST_MAY_FORK)) {
  for (int const stopped : {0, 2}) {
    CHECK(test::in_time(milliseconds(500), [stopped](milliseconds silence) {
            auto const status = sm::spawn_processes(
                3,
                [&] {
                  Limits limits(test::patience);
                  limits.silence = silence;
                  sm::Environment const place = sm::read_environment();
                  sm::SocketCommunicator const world(place.address, place.port, place.rank,
                                                     place.size, limits);
                  Working const work(world, "works");
                  world.barrier();
                  if (world.rank() == stopped) {
                    std::raise(SIGSTOP);
                  }
                  std::string const error = error_of<sm::CommError>([&] { world.barrier(); });
                  std::string const who = "rank " + std::to_string(stopped) + " did not ";
                  return contains(error, who) &&
                                 contains(error, "nothing has been heard from it for " +
                                                     std::to_string(silence.count()) + " ms")
                             ? 3
                             : 4;
                },
                2);
            for (int rank = 0; rank < 3; ++rank) {
              int const wanted = rank == stopped ? 128 + SIGKILL : 3;
              bool const fails_alone = stopped == 0 || rank == 0 || rank == stopped;
              int const got = status[static_cast<std::size_t>(rank)];
              if (got != wanted && (fails_alone || got != 4)) {
                return "rank " + std::to_string(rank) + " ends with " + std::to_string(got);
              }
            }
            return std::string();
          }) == "");
  }
}

TEST_CASE("working: communicators that know nothing of it are left alone") {
  struct Foreign {
  } const comm;
  Working work(comm, "works");
  work.advance();
  CHECK(sm::detail::activity_of(comm) == nullptr);
}

TEST_SUITE_END();

}  // namespace working_test
