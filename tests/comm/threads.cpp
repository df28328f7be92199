// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>

#include <sys/resource.h>

#include <atomic>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/spawn.hpp>

#include "../support/held_memory.hpp"
#include "ranks.hpp"

namespace threads_test {

namespace sm = shardmesh;

using test::contains;
using test::error_of;
using test::milliseconds;
using World = sm::ThreadsCommunicator;

namespace {

/// What each rank's body throws, as text; the ranks themselves end well.
template <class E, class Body>
test::Texts errors_of_ranks(int ranks, milliseconds timeout, Body body) {
  test::Texts errors(static_cast<std::size_t>(ranks));
  sm::launch(sm::threads{ranks, timeout}, [&](World& world) {
    errors[static_cast<std::size_t>(world.rank())] = error_of<E>([&] { body(world); });
  });
  return errors;
}

}  // namespace

TEST_SUITE_BEGIN("comm.threads");

TEST_CASE("threads: splits by color and key, negative colors, splits of splits") {
  sm::launch(sm::threads{6}, [](World& world) { CHECK(test::splits_of_six(world) == ""); });
}

TEST_CASE("threads: halving 8 ranks three times leaves each alone with its own number") {
  sm::launch(sm::threads{8}, [](World& world) {
    World group = world;
    for (int size = 8; size > 1; size /= 2) {
      CHECK(group.size() == size);
      group = group.split(group.rank() / (size / 2), group.rank());
      CHECK(group.world_ranks().front() == world.rank() / (size / 2) * (size / 2));
    }
    CHECK(group.world_ranks() == std::vector<int>{world.rank()});
    group.barrier();
  });
}

TEST_CASE("threads: groups of the same color from different splits do not mix") {
  sm::launch(sm::threads{3}, [](World& world) {
    World const first = world.split(0, 0);
    World const second = world.split(0, -world.rank());
    auto const in_first = sm::all_gather_value(first, world.rank());
    auto const in_second = sm::all_gather_value(second, world.rank());
    CHECK(in_first == std::vector<int>{0, 1, 2});
    CHECK(in_second == std::vector<int>{2, 1, 0});
  });
}

TEST_CASE("threads: copies of a communicator are the same rank of the same group") {
  sm::launch(sm::threads{3}, [](World& world) {
    World const copy = world;
    for (int round = 0; round < 5; ++round) {
      World const& one = round % 2 == 0 ? copy : world;
      CHECK(sm::all_gather_value(one, world.rank() + round) ==
            std::vector<int>{round, 1 + round, 2 + round});
    }
  });
}

TEST_CASE("threads: exchange of messages of many sizes, none and to oneself included") {
  for (int ranks : {1, 2, 3, 5, 8}) {
    sm::launch(sm::threads{ranks}, [](World& world) {
      CHECK(test::exchange_all_pairs(world, {1, 0, 7, 4096, 100'003, 0}) == "");
      CHECK(test::exchange_all_pairs(world, {}) == "");
    });
  }
}

TEST_CASE("threads: exchange takes null addresses of empty messages") {
  sm::launch(sm::threads{2}, [](World& world) {
    sm::Message const send{1 - world.rank(), nullptr, 0};
    sm::Message receive{1 - world.rank(), nullptr, 0};
    CHECK_NOTHROW(world.exchange<sm::HostMemory>({&send, 1}, {&receive, 1}));
  });
}

TEST_CASE("threads: messages that do not match give every rank an error that names both") {
  auto const errors = [](int sent, int expected) {
    auto const all = errors_of_ranks<sm::MismatchError>(
        3, test::patience, [&](World& w) { test::exchange_sizes(w, sent, expected); });
    CHECK(all[0] == all[1]);
    CHECK(all[0] == all[2]);
    return all[0];
  };
  CHECK(errors(8, 8) == "no error");
  CHECK(errors(8, 12) ==
        "shardmesh::exchange: rank 1 expects 12 bytes from rank 0, which sends 8 bytes");
  CHECK(errors(-1, 12) ==
        "shardmesh::exchange: rank 1 expects 12 bytes from rank 0, which sends nothing");
  CHECK(errors(8, -1) ==
        "shardmesh::exchange: rank 0 sends 8 bytes to rank 1, which does not expect them");
}

TEST_CASE("threads: a message for a rank that is not in the group is refused on every rank") {
  for (int peer : {-1, 2}) {
    auto const all = errors_of_ranks<sm::MismatchError>(2, test::patience, [peer](World& world) {
      std::byte byte{};
      std::vector<sm::Message> sends(world.rank() == 0 ? 1 : 0, sm::Message{peer, &byte, 1});
      world.exchange<sm::HostMemory>(sends, {});
    });
    CHECK(all[0] == "shardmesh::exchange: rank 0 has a message for rank " + std::to_string(peer) +
                        " of a group of 2; peers are ranks of the group");
    CHECK(all[1] == all[0]);
  }
}

TEST_CASE("threads: a rank that throws wakes all others, which learn who and why") {
  std::atomic<int> woken{0};
  CHECK_THROWS_WITH_AS(
      sm::launch(sm::threads{5, test::patience},
                 [&](World& world) {
                   World const group = world.split(world.rank() % 2, 0);
                   if (world.rank() == 3) {
                     throw std::out_of_range("the disk is full");
                   }
                   try {
                     // Ranks 0, 2, 4 meet without rank 3, then wait for it.
                     group.barrier();
                     world.barrier();
                   } catch (sm::RankFailed const& error) {
                     CHECK(error.rank() == 3);
                     CHECK(contains(error.what(), "rank 3 failed: the disk is full"));
                     ++woken;
                     throw;
                   }
                 }),
      "the disk is full", std::out_of_range);
  CHECK(woken == 4);  // no TimeoutError, so none has waited for its time to be over
}

TEST_CASE("threads: memory stays until nobody copies, whatever fails") {
  test::reset_watch();
  CHECK_THROWS_WITH_AS(sm::launch(sm::threads{3},
                                  [](World& world) {
                                    World const pair = world.split(world.rank() < 2 ? 0 : -1, 0);
                                    if (world.rank() == 2) {
                                      test::wait_for_copies();
                                      throw std::runtime_error("a third rank fails");
                                    }
                                    std::vector<char> data(1000, static_cast<char>(world.rank()));
                                    test::Leaves const guard;
                                    std::vector<sm::Message> sends;
                                    std::vector<sm::Message> receives;
                                    (world.rank() == 0 ? sends : receives)
                                        .push_back({1 - world.rank(), data.data(), data.size()});
                                    pair.exchange<test::HeldMemory>(sends, receives);
                                  }),
                       "a third rank fails", std::runtime_error);
  CHECK(test::HeldMemory::watch().copying);
  CHECK(!test::HeldMemory::watch().too_early);
}

TEST_CASE("threads: a rank that breaks off an exchange waits for those that copy from it") {
  test::reset_watch();
  CHECK_THROWS_WITH_AS(sm::launch(sm::threads{2},
                                  [](World& world) {
                                    std::vector<char> data(1000, static_cast<char>(world.rank()));
                                    test::Leaves const guard;
                                    auto phase = world.copy_phase(sm::HostStream{});
                                    world.barrier();
                                    if (world.rank() == 0) {
                                      test::wait_for_copies();
                                      throw std::runtime_error("rank 0 breaks off");
                                    }
                                    std::vector<char> into(data.size());
                                    test::HeldMemory::copy(
                                        {data.data(), into.data(), {1000}, {1}, {1}, 1}, {});
                                    phase.end();
                                    world.barrier();
                                    phase.close();
                                  }),
                       "rank 0 breaks off", std::runtime_error);
  CHECK(!test::HeldMemory::watch().too_early);
}

TEST_CASE("threads: a rank that breaks off before the others know its memory waits for nobody") {
  // Else it would wait for those that wait for it, until they give up and fail first.
  CHECK_THROWS_WITH_AS(sm::launch(sm::threads{3, test::patience},
                                  [](World& world) {
                                    auto phase = world.copy_phase(sm::HostStream{});
                                    if (world.rank() == 1) {
                                      throw std::runtime_error("no memory for a list");
                                    }
                                    CHECK_THROWS_AS(phase.show(&phase, "exchange"), sm::RankFailed);
                                  }),
                       "no memory for a list", std::runtime_error);
}

TEST_CASE("threads: what is thrown need not be a std::exception") {
  std::string seen;
  try {
    sm::launch(sm::threads{2}, [&](World& world) {
      if (world.rank() == 1) {
        throw 42;
      }
      seen = error_of<sm::RankFailed>([&] { world.barrier(); });
    });
    CHECK(false);
  } catch (int thrown) {
    CHECK(thrown == 42);
  }
  CHECK(seen == "shardmesh::barrier: rank 1 failed: an exception that is no std::exception");
}

TEST_CASE("threads: ranks that wait for one that has returned are told at once") {
  auto const errors = errors_of_ranks<sm::CommError>(4, test::patience, [](World& world) {
    if (world.rank() != 1) {
      static_cast<void>(sm::all_gather_value(world, 1));
    }
  });
  CHECK(errors[1] == "no error");
  for (std::size_t rank : {0U, 2U, 3U}) {
    CHECK(contains(errors[rank], "shardmesh::all_gather_value: rank "));
    CHECK(contains(errors[rank], "1"));
    CHECK(contains(errors[rank], "left without taking part; every rank must make the same calls"));
  }
}

TEST_CASE("threads: a rank that does not arrive is named when the time is over") {
  CHECK(test::in_time(milliseconds(200), [](milliseconds timeout) {
          std::atomic<int> waiting{3};
          std::atomic<bool> come{false};
          auto const errors = errors_of_ranks<sm::CommError>(4, timeout, [&](World& world) {
            if (world.rank() == 2) {
              test::wait_for(come, timeout);
              world.barrier();
            }
            CHECK(error_of<sm::CommError>([&] { world.barrier(); }) != "no error");
            come = --waiting == 0;
            // Nobody may mistake a second call for the rank that is missing.
            world.barrier();
          });
          return test::first_other(
              errors, "shardmesh::barrier: rank 2 did not arrive within " +
                          std::to_string(timeout.count()) +
                          " ms; look at what it waits for, or raise the timeout of the launch");
        }) == "");
}

TEST_CASE("threads: a call after one that failed does not stand in for a rank that has left") {
  auto const errors = errors_of_ranks<sm::CommError>(3, test::patience, [](World& world) {
    if (world.rank() == 2) {
      return;
    }
    CHECK(contains(error_of<sm::CommError>([&] { world.barrier(); }), "2 has left"));
    world.barrier();
  });
  CHECK(errors[2] == "no error");
  // The other rank of the two may have left by the second call as well.
  CHECK(contains(errors[0], "left without taking part"));
  CHECK(contains(errors[1], "left without taking part"));
}

TEST_CASE("threads: in a group the missing rank is named by its number in the job") {
  CHECK(test::in_time(milliseconds(200), [](milliseconds timeout) {
          std::atomic<bool> told{false};
          std::string error;
          std::string const other = error_of<sm::CommError>([&] {
            sm::launch(sm::threads{4, timeout}, [&](World& world) {
              World const group = world.split(world.rank() % 2, 0);
              if (world.rank() == 1) {
                error = error_of<sm::TimeoutError>([&] { group.barrier(); });
                told = true;
              } else if (world.rank() == 3) {
                test::wait_for(told, timeout);
              }
            });
          });
          bool const named = contains(error, "rank 3 did not arrive within " +
                                                 std::to_string(timeout.count()) + " ms");
          return named ? "" : error + "; " + other;
        }) == "");
}

TEST_CASE("threads: ranks that make different calls get an error that names both") {
  auto const errors = errors_of_ranks<sm::MismatchError>(3, test::patience, [](World& world) {
    if (world.rank() == 1) {
      static_cast<void>(sm::all_gather_value(world, 1));
    } else {
      world.barrier();
    }
  });
  for (std::string const& error : errors) {
    CHECK(error == "shardmesh: ranks made different calls: rank 0 is in barrier, rank 1 is in "
                   "all_gather_value; every rank must make the same calls");
  }
}

TEST_CASE("threads: a split meets splits alone, whatever the other rank gathers") {
  for (std::size_t const bytes : {0U, 3U, 8U, 12U}) {
    CHECK_THROWS_WITH_AS(
        sm::launch(sm::threads{2},
                   [bytes](World& world) {
                     if (world.rank() == 0) {
                       static_cast<void>(world.split(0, 0));
                     } else {
                       static_cast<void>(world.all_gather(std::vector<std::byte>(bytes)));
                     }
                   }),
        doctest::Contains("rank 0 is in split, rank 1 is in all_gather"), sm::MismatchError);
  }
}

TEST_CASE(
    "threads: a rank whose thread cannot be started is named at once, and nobody waits for it" *
    doctest::skip(test::sanitized)) {
  auto const status = sm::spawn_processes(1, [] {
    // Room for the stacks of some threads, not of all.
    std::ifstream pages("/proc/self/statm");
    std::size_t used = 0;
    pages >> used;
    rlimit const room{used * 4096 + (std::size_t{100} << 20), RLIM_INFINITY};
    if (::setrlimit(RLIMIT_AS, &room) != 0) {
      return 2;
    }
    std::atomic<int> told{0};
    std::string const error = error_of<sm::CommError>([&] {
      sm::launch(sm::threads{500, test::patience}, [&](World& world) {
        std::string const words = error_of<sm::CommError>([&] { world.barrier(); });
        told += contains(words, "its thread cannot be started") ? 1 : 0;
      });
    });
    bool const good = contains(error, "shardmesh::launch: rank ") &&
                      contains(error, "its thread cannot be started (") && told > 0;
    return good ? 0 : 1;
  });
  CHECK(status == std::vector<int>{0});
}

TEST_CASE("threads: a launch of no ranks is refused") {
  CHECK(error_of<sm::InvalidArgument>([] { sm::launch(sm::threads{0}, [](World&) {}); }) ==
        "shardmesh::launch: threads{0} starts no rank; give at least 1");
}

TEST_CASE("threads: many collectives one after the other keep every value") {
  for (int ranks : {2, 3, 8}) {
    sm::launch(sm::threads{ranks}, [ranks](World& world) {
      bool good = true;
      for (int round = 0; round < 200; ++round) {
        auto const all = sm::all_gather_value(world, 1000 * round + world.rank());
        for (int rank = 0; rank < ranks; ++rank) {
          good = good && all[static_cast<std::size_t>(rank)] == 1000 * round + rank;
        }
        if (round % 10 == 0) {
          World const group = world.split(world.rank() % 2, round % 20 == 0 ? world.rank() : 0);
          good = good &&
                 sm::all_gather_text(group, "x").size() == static_cast<std::size_t>(group.size());
          good = good && test::exchange_all_pairs(world, {8, 33}).empty();
        }
      }
      CHECK(good);
    });
  }
}

TEST_SUITE_END();

}  // namespace threads_test
