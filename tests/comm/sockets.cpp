// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/sockets.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include <doctest/doctest.h>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/spawn.hpp>

#include "ranks.hpp"

namespace sockets_test {

namespace sm = shardmesh;

using sm::SocketCommunicator;
using sm::detail::Socket;
using test::contains;
using test::error_of;
using test::milliseconds;
using test::run_sockets;
using test::Texts;

namespace {

constexpr std::size_t big = std::size_t{8} << 20;

Texts no_errors(int ranks) {
  return Texts(static_cast<std::size_t>(ranks), "no error");
}

/// Gathers until something fails; nothing is wrong if that names rank 2, and no timeout.
int see_rank_2_end(SocketCommunicator const& world) {
  std::string const error = error_of<sm::RankFailed>([&] {
    std::vector<std::byte> const bytes(100'000);
    while (true) {
      static_cast<void>(world.all_gather(bytes));
    }
  });
  return contains(error, "rank 2 has ended") ? 0 : 1;
}

}  // namespace

TEST_SUITE_BEGIN("comm.sockets");

TEST_CASE("sockets: collectives at 1 to 8 ranks") {
  for (int ranks : {1, 2, 3, 4, 8}) {
    CHECK(run_sockets(ranks, test::patience, [ranks](SocketCommunicator const& world) {
            CHECK(world.size() == ranks);
            CHECK(world.timeout() == test::patience);
            for (int round = 0; round < 20; ++round) {
              auto const all = sm::all_gather_value(world, 10 * world.rank() + round);
              REQUIRE(static_cast<int>(all.size()) == ranks);
              for (int rank = 0; rank < ranks; ++rank) {
                CHECK(all[static_cast<std::size_t>(rank)] == 10 * rank + round);
              }
              world.barrier();
            }
            auto const texts = sm::all_gather_text(
                world, std::string(static_cast<std::size_t>(world.rank()), 'x'));
            CHECK(texts.back() == std::string(static_cast<std::size_t>(ranks - 1), 'x'));
            CHECK(texts.front().empty());
          }) == no_errors(ranks));
  }
}

TEST_CASE("sockets: splits by color and key, negative colors, splits of splits") {
  CHECK(run_sockets(6, test::patience, [](SocketCommunicator const& world) {
          CHECK(test::splits_of_six(world) == "");
        }) == no_errors(6));
}

TEST_CASE("sockets: exchange of messages of many sizes, none and to oneself included") {
  for (int ranks : {1, 2, 4}) {
    CHECK(run_sockets(ranks, test::patience, [](SocketCommunicator const& world) {
            CHECK(test::exchange_all_pairs(world, {1, 0, 7, 4096, 10'003, 0}) == "");
            CHECK(test::exchange_all_pairs(world, {}) == "");
          }) == no_errors(ranks));
  }
}

TEST_CASE("sockets: exchange takes null addresses of empty messages") {
  CHECK(run_sockets(2, test::patience, [](SocketCommunicator const& world) {
          sm::Message const send{1 - world.rank(), nullptr, 0};
          sm::Message receive{1 - world.rank(), nullptr, 0};
          world.exchange<sm::HostMemory>({&send, 1}, {&receive, 1});
        }) == no_errors(2));
}

TEST_CASE("sockets: big messages both ways at once do not block each other") {
  CHECK(run_sockets(2, test::patience, [](SocketCommunicator const& world) {
          int const peer = 1 - world.rank();
          std::vector<std::byte> out(big, static_cast<std::byte>(world.rank() + 1));
          std::vector<std::byte> in(big);
          sm::Message const send{peer, out.data(), big};
          sm::Message receive{peer, in.data(), big};
          world.exchange<sm::HostMemory>({&send, 1}, {&receive, 1});
          CHECK(in == std::vector<std::byte>(big, static_cast<std::byte>(peer + 1)));
        }) == no_errors(2));
}

TEST_CASE("sockets: messages that do not match give every rank an error that names both") {
  auto const errors = [](int sent, int expected) {
    return run_sockets(3, test::patience, [&](SocketCommunicator const& world) {
      std::string const error =
          error_of<sm::MismatchError>([&] { test::exchange_sizes(world, sent, expected); });
      world.barrier();  // the group is still good: nothing was half done
      throw std::runtime_error(error);
    });
  };
  auto const all = [](std::string const& text) { return Texts(3, text); };
  CHECK(errors(8, 8) == all("no error"));
  CHECK(errors(8, 12) ==
        all("shardmesh::exchange: rank 1 expects 12 bytes from rank 0, which sends 8 bytes"));
  CHECK(errors(-1, 12) ==
        all("shardmesh::exchange: rank 1 expects 12 bytes from rank 0, which sends nothing"));
  CHECK(errors(8, -1) ==
        all("shardmesh::exchange: rank 0 sends 8 bytes to rank 1, which does not expect them"));
}

TEST_CASE("sockets: ranks that are in different calls of a group get an error") {
  auto const errors = run_sockets(2, test::patience, [](SocketCommunicator const& world) {
    if (world.rank() == 1) {
      world.barrier();
    } else {
      world.exchange<sm::HostMemory>({}, {});
    }
  });
  CHECK(errors == Texts(2,
                        "shardmesh: ranks made different calls: rank 0 is in exchange, rank 1 is "
                        "in barrier; every rank must make the same calls"));
}

TEST_CASE("sockets: a rank that fails is named to all others, with its words") {
  for (int failing : {0, 1, 2}) {
    auto const errors = run_sockets(3, test::patience, [failing](SocketCommunicator const& world) {
      world.barrier();
      if (world.rank() == failing) {
        throw std::runtime_error("the disk is full");
      }
      world.barrier();
    });
    for (int rank = 0; rank < 3; ++rank) {
      std::string const& error = errors[static_cast<std::size_t>(rank)];
      CHECK(error == (rank == failing ? std::string("the disk is full")
                                      : "shardmesh: rank " + std::to_string(failing) +
                                            " failed: the disk is full"));
    }
  }
}

TEST_CASE("sockets: a rank that is busy hides none that fails, rank 0 no more than others") {
  for (int const busy : {0, 1}) {
    std::atomic<bool> told{false};
    auto const errors = run_sockets(3, test::patience, [&](SocketCommunicator const& world) {
      world.barrier();
      if (world.rank() == 2) {
        throw std::runtime_error("the disk is full");
      }
      if (world.rank() == busy) {
        test::wait_for(told, test::patience);
        CHECK(told);
      }
      std::string const error = error_of<sm::CommError>([&] { world.barrier(); });
      told = true;
      throw std::runtime_error(error);
    });
    std::string const words = "shardmesh: rank 2 failed: the disk is full";
    CHECK(errors == Texts{words, words, "the disk is full"});
  }
}

TEST_CASE("sockets: who waits in one group for a rank that stops because of another hears of that "
          "other") {
  for (bool const keeps : {true, false}) {  // does rank 1 keep the group in which rank 0 waits?
    std::atomic<bool> told{false};
    auto const errors = run_sockets(3, test::patience, [&](SocketCommunicator const& world) {
      SocketCommunicator const left = world.split(world.rank() < 2 ? 0 : -1, 0);
      if (world.rank() == 2) {
        throw std::runtime_error("the disk is full");
      }
      if (world.rank() == 1) {
        CHECK(contains(error_of<sm::RankFailed>([&] { world.barrier(); }), "rank 2 failed"));
        if (keeps) {
          test::wait_for(told, test::patience);
        }
      } else {
        std::string const error = error_of<sm::RankFailed>([&] { left.barrier(); });
        told = true;
        CHECK(error == "shardmesh: rank 2 failed: the disk is full");
      }
    });
    CHECK(told);
  }
}

TEST_CASE("sockets: a rank that leaves early is no failure to those that do not need it") {
  std::atomic<bool> left{false};
  auto const errors = run_sockets(4, test::patience, [&](SocketCommunicator const& world) {
    SocketCommunicator const pair = world.split(world.rank() / 2, 0);
    if (world.rank() == 2) {
      left = true;
    }
    if (world.rank() < 2) {
      test::wait_for(left, test::patience);
      for (int round = 0; round < 20; ++round) {
        CHECK(sm::all_gather_value(pair, world.rank()) == std::vector<int>{0, 1});
      }
    }
  });
  CHECK(errors == no_errors(4));
}

TEST_CASE("sockets: RankFailed holds the number of the rank in the job, in a group as well") {
  auto const errors = run_sockets(4, test::patience, [](SocketCommunicator const& world) {
    SocketCommunicator const group = world.split(world.rank() % 2, -world.rank());
    if (world.rank() == 1) {
      group.report_failure("the tape is torn");
    } else if (world.rank() == 3) {
      try {
        group.barrier();
        CHECK(false);
      } catch (sm::RankFailed const& error) {
        CHECK(error.rank() == 1);
        CHECK(contains(error.what(), "rank 1 failed: the tape is torn"));
      }
    }
    world.barrier();
  });
  CHECK(errors == no_errors(4));
}

TEST_CASE("sockets: a rank that ends without a word is named") {
  auto const errors = run_sockets(3, test::patience, [](SocketCommunicator const& world) {
    if (world.rank() != 1) {
      world.barrier();
    }
  });
  CHECK(errors == Texts{"shardmesh: rank 1 has ended", "no error", "shardmesh: rank 1 has ended"});
}

TEST_CASE("sockets: a rank that does not arrive is named when the time is over") {
  CHECK(test::in_time(milliseconds(300), [](milliseconds timeout) {
          std::atomic<int> waiting{2};
          std::atomic<bool> come{false};
          auto const errors = run_sockets(3, timeout, [&](SocketCommunicator const& world) {
            if (world.rank() == 2) {
              test::wait_for(come, timeout);
            }
            std::string const error = error_of<sm::CommError>([&] { world.barrier(); });
            come = --waiting <= 0;
            throw std::runtime_error(error);
          });
          return test::first_other(errors, "shardmesh: rank 2 did not arrive within " +
                                               std::to_string(timeout.count()) + " ms");
        }) == "");
}

TEST_CASE("sockets: others wait for rank 0 a little longer, then name it") {
  CHECK(test::in_time(milliseconds(200), [](milliseconds timeout) {
          std::atomic<bool> told{false};
          auto const errors = run_sockets(2, timeout, [&](SocketCommunicator const& world) {
            if (world.rank() == 0) {
              test::wait_for(told, timeout);
              return;
            }
            std::string const error = error_of<sm::CommError>([&] { world.barrier(); });
            told = true;
            throw std::runtime_error(error);
          });
          bool const good =
              errors == Texts{"no error", "shardmesh: rank 0 did not answer within " +
                                              std::to_string(timeout.count()) + " ms"};
          return good ? "" : errors[0] + "; " + errors[1];
        }) == "");
}

TEST_CASE("sockets: a sender that is cut off still learns which rank has failed") {
  auto const errors = run_sockets(3, test::patience, [](SocketCommunicator const& world) {
    if (world.rank() == 1) {
      throw std::runtime_error("the tape is torn");
    }
    // Rank 0 hears from rank 1 first, and takes nothing of this.
    std::vector<std::byte> const bytes(world.rank() == 2 ? 8 * big : 0);
    static_cast<void>(world.all_gather(bytes));
  });
  CHECK(errors[0] == "shardmesh: rank 1 failed: the tape is torn");
  CHECK(errors[2] == "shardmesh: rank 1 failed: the tape is torn");
}

TEST_CASE("sockets: a rank that does not take what it is sent is named") {
  CHECK(test::in_time(milliseconds(300), [](milliseconds timeout) {
          int const port = test::free_port();
          std::latch over(1);
          std::jthread const fake([port, &over] {
            sm::detail::Link link = test::join_as(port, 1, 2);
            link.queue(sm::detail::FrameKind::offer, 0, 0, {});  // its part of the first call
            link.send();
            over.wait();
          });
          std::string const error = error_of<sm::TimeoutError>([&] {
            SocketCommunicator const world("127.0.0.1", port, 0, 2, timeout, test::secret);
            std::vector<std::byte> const bytes(4 * big);
            static_cast<void>(world.all_gather(bytes));
          });
          over.count_down();
          return test::first_other({error}, "shardmesh: rank 1 did not take its data within " +
                                                std::to_string(timeout.count()) + " ms");
        }) == "");
}

TEST_CASE("sockets: ranks that do not connect are named") {
  CHECK(test::in_time(milliseconds(300), [](milliseconds timeout) {
          int const port = test::free_port();
          std::latch over(1);
          std::jthread const fake([port, &over] {
            sm::detail::Link const link = test::join_as(port, 2, 4);
            over.wait();
          });
          std::string const error = error_of<sm::TimeoutError>(
              [&] { SocketCommunicator("127.0.0.1", port, 0, 4, timeout, test::secret); });
          over.count_down();
          return test::first_other({error}, "shardmesh: rank 1, 3 did not connect within " +
                                                std::to_string(timeout.count()) +
                                                " ms; start all 4 ranks");
        }) == "");
}

TEST_CASE("sockets: where nobody listens the error says so, in time") {
  int const port = test::free_port();
  std::string error;
  auto const elapsed = test::time_of([&] {
    error = error_of<sm::TimeoutError>(
        [&] { SocketCommunicator("127.0.0.1", port, 1, 2, milliseconds(300), test::secret); });
  });
  CHECK(error == "shardmesh: nobody listens on 127.0.0.1:" + std::to_string(port) +
                     "; start rank 0, and look at MASTER_ADDR and MASTER_PORT");
  CHECK(elapsed >= milliseconds(300));
  CHECK(elapsed < test::patience);
}

TEST_CASE("sockets: a host that does not answer is given up in time") {
  // A listener whose queue is full answers no connection; what fills it is one that gets none.
  Socket const full = Socket::listen(0);
  REQUIRE(::listen(full.descriptor(), 0) == 0);
  std::vector<Socket> fillers;
  std::string error;
  while (error.empty() && fillers.size() < 8) {
    auto const elapsed = test::time_of([&] {
      try {
        fillers.push_back(Socket::connect("127.0.0.1", full.port(),
                                          std::chrono::steady_clock::now() + milliseconds(500)));
      } catch (sm::TimeoutError const& timed_out) {
        error = timed_out.what();
      }
    });
    CHECK(elapsed < test::patience);
  }
  CHECK(contains(error, "nobody listens on 127.0.0.1:"));
}

TEST_CASE("sockets: a name without an address and a port in use are errors that say so") {
  std::string const name(300, 'x');
  CHECK(error_of<sm::CommError>([&] {
          SocketCommunicator(name, 29500, 1, 2, milliseconds(300), test::secret);
        }) == "shardmesh: \"" + name + "\" has no address; look at MASTER_ADDR");
  Socket const taken = Socket::listen(0);
  std::string const error = error_of<sm::CommError>(
      [&] { SocketCommunicator("127.0.0.1", taken.port(), 0, 1, milliseconds(300)); });
  CHECK(contains(error, "rank 0 cannot listen on port " + std::to_string(taken.port())));
  CHECK(contains(error, "set MASTER_PORT to a free port"));
}

TEST_CASE("sockets: processes gather, split and exchange big messages" *
          doctest::skip(!SHARDMESH_TEST_MAY_FORK)) {
  auto const status = sm::spawn_processes(3, [] {
    int result = 1;
    sm::launch(sm::environment{test::patience}, [&](SocketCommunicator const& world) {
      SocketCommunicator const group = world.split(world.rank() == 1 ? 0 : 1, -world.rank());
      bool good =
          group.world_ranks() == (world.rank() == 1 ? std::vector<int>{1} : std::vector<int>{2, 0});
      good = good && sm::all_gather_value(group, world.rank()) == group.world_ranks();
      good = good && test::exchange_all_pairs(group, {big, 0, 5}).empty();
      good = good && test::exchange_all_pairs(world, {3, 70'000}).empty();
      result = good ? 0 : 1;
    });
    return result;
  });
  CHECK(status == std::vector<int>{0, 0, 0});
}

TEST_CASE("sockets: a process that is killed in mid-collective is named to the others" *
          doctest::skip(!SHARDMESH_TEST_MAY_FORK)) {
  auto const status = sm::spawn_processes(4, [] {
    sm::Environment const place = sm::read_environment();
    SocketCommunicator const world(place.address, place.port, place.rank, place.size,
                                   test::patience);
    world.barrier();
    if (world.rank() == 2) {
      for (int round = 0; round < 3; ++round) {
        static_cast<void>(world.all_gather(std::vector<std::byte>(100'000)));
      }
      std::raise(SIGKILL);
    }
    return see_rank_2_end(world);
  });
  CHECK(status == std::vector<int>{0, 0, 128 + SIGKILL, 0});
}

TEST_CASE("sockets: a process that is killed while another is busy is named at once" *
          doctest::skip(!SHARDMESH_TEST_MAY_FORK)) {
  for (int const busy : {0, 1}) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    auto const status = sm::spawn_processes(3, [busy, ends] {
      sm::Environment const place = sm::read_environment();
      SocketCommunicator const world(place.address, place.port, place.rank, place.size,
                                     test::patience);
      world.barrier();
      char told = 0;
      if (world.rank() == 2) {
        std::raise(SIGKILL);
      }
      if (world.rank() == busy) {  // until the other one knows
        return ::read(ends[0], &told, 1) == 1 ? 0 : 1;
      }
      int const result = see_rank_2_end(world);
      return ::write(ends[1], &told, 1) == 1 ? result : 1;
    });
    ::close(ends[0]);
    ::close(ends[1]);
    CHECK(status == std::vector<int>{0, 0, 128 + SIGKILL});
  }
}

TEST_CASE("sockets: launch tells the other processes why one fails" *
          doctest::skip(!SHARDMESH_TEST_MAY_FORK)) {
  auto const status = sm::spawn_processes(3, [] {
    std::string const error = error_of<std::runtime_error>([] {
      sm::launch(sm::environment{test::patience}, [](SocketCommunicator const& world) {
        if (world.rank() == 1) {
          throw std::runtime_error("the disk is full");
        }
      });
    });
    bool const failed = sm::read_environment().rank == 1;
    return error == (failed ? "the disk is full" : "shardmesh: rank 1 failed: the disk is full")
               ? 0
               : 1;
  });
  CHECK(status == std::vector<int>{0, 0, 0});
}

TEST_CASE("sockets: why processes are not tested" * doctest::skip(SHARDMESH_TEST_MAY_FORK)) {
  MESSAGE("the tests with processes are left out: ThreadSanitizer does not follow a fork of a "
          "process that has had threads");
  CHECK(SHARDMESH_TEST_MAY_FORK == 0);
}

TEST_SUITE_END();

}  // namespace sockets_test
