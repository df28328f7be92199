// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/detail/shared_windows.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sched.h>
#include <sys/mount.h>

#include <doctest/doctest.h>
#include <shardmesh/comm/detail/host.hpp>
#include <shardmesh/comm/detail/offers.hpp>
#include <shardmesh/comm/detail/socket_exchange.hpp>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/counters.hpp>
#include <shardmesh/core/log.hpp>

#include "ranks.hpp"

namespace shared_windows_test {

namespace sm = shardmesh;

using sm::SocketCommunicator;
using sm::detail::SharedWindows;
using sm::detail::WindowRounds;

namespace {

/// Bytes of a part of message `m`: in the window nothing else may lie there.
struct Used {
  std::size_t first;
  std::size_t last;
};

/// What is wrong with how messages are cut.
std::string fault_of(std::vector<std::size_t> const& messages, std::size_t window) {
  WindowRounds const rounds(messages, window);
  std::size_t const total = std::accumulate(messages.begin(), messages.end(), std::size_t{0});
  if (rounds.count() > 1 + total / (window - messages.size() * WindowRounds::line)) {
    return "more rounds than are needed";
  }
  std::vector<std::size_t> sent(messages.size(), 0);
  for (std::size_t round = 0; round < rounds.count(); ++round) {
    std::vector<Used> used;
    for (std::size_t m = 0; m < messages.size(); ++m) {
      WindowRounds::Part const part = rounds.part(m, round);
      if (part.first != sent[m]) {
        return "a part does not begin where the last one ended";
      }
      sent[m] += part.bytes;
      if (part.bytes > 0) {
        used.push_back({part.at, part.at + part.bytes});
      }
    }
    std::sort(used.begin(), used.end(), [](Used a, Used b) { return a.first < b.first; });
    for (std::size_t i = 0; i < used.size(); ++i) {
      if (used[i].last > (i + 1 < used.size() ? used[i + 1].first : window)) {
        return "two parts overlap, or one leaves the window";
      }
    }
  }
  return sent == messages ? "" : "not everything is sent";
}

/// Everybody exchanges messages of all kinds of sizes with everybody, again and again, in groups of all and of few.
/// @returns what is wrong.
std::string exchange_often(SocketCommunicator const& world) {
  std::string wrong;
  for (SocketCommunicator const& group : {world, world.split(world.rank() % 2, world.rank())}) {
    for (std::vector<std::size_t> const& sizes : {std::vector<std::size_t>{0, 1, 4096},
                                                  {4097},
                                                  {SharedWindows::half / 3 + 77, 3},
                                                  {5000, 0, 4096, 70'001},
                                                  {17}}) {
      wrong += wrong.empty() ? test::exchange_all_pairs(group, sizes) : "";
    }
  }
  return wrong;
}

/// Bytes that this process sends through sockets for messages of 256 KiB between all ranks.
std::size_t socket_bytes(SocketCommunicator const& world) {
  std::uint64_t const before = sm::counters().socket_sent_bytes;
  if (!test::exchange_all_pairs(world, {std::size_t{1} << 18}).empty()) {
    return SIZE_MAX;
  }
  return static_cast<std::size_t>(sm::counters().socket_sent_bytes - before);
}

/// Gives this process, and those that it forks, a /dev/shm of their own.
bool mount_shm(char const* room) {
  return ::unshare(CLONE_NEWNS) == 0 &&
         ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", "/dev/shm", "tmpfs", 0, room) == 0;
}

/// What ranks bring to the steps of an exchange has their number at its end, and whether they share memory.
std::vector<std::byte> at_step(std::uint32_t step, std::vector<std::byte> bytes = {}) {
  std::uint32_t const mark[] = {step, 0};
  auto const raw = std::as_bytes(std::span(mark));
  bytes.insert(bytes.end(), raw.begin(), raw.end());
  return bytes;
}
std::vector<std::byte> offer_of(sm::Message const& send) {
  return at_step(1, sm::detail::pack_offer(std::span(&send, 1), std::vector<sm::Message>{}));
}

std::string error_of_exchange(SocketCommunicator const& world, char const* name) {
  return test::error_of<sm::MismatchError>(
      [&] { world.exchange<sm::HostMemory>({}, {}, {}, name); });
}

/// Counts how often it is said that memory is not shared.
struct Listener : sm::LogSink {
  void write(sm::LogLevel, std::string_view text) noexcept override {
    times += text.find("share no memory") != std::string_view::npos ? 1 : 0;
  }
  int times = 0;
};

}  // namespace

TEST_SUITE_BEGIN("comm.shared_windows");

TEST_CASE("messages are cut to a window's size without gap or overlap, and no more often than is "
          "needed") {
  CHECK(WindowRounds().count() == 0);
  CHECK(WindowRounds({}, 4096).count() == 0);
  CHECK(WindowRounds(std::vector<std::size_t>{4096 - 64}, 4096).count() == 1);
  CHECK(WindowRounds(std::vector<std::size_t>{4096 - 63}, 4096).count() == 2);
  CHECK(WindowRounds(std::vector<std::size_t>{1000, 2968}, 4096).count() == 1);
  std::mt19937 random(20261127);
  for (int round = 0; round < 3000; ++round) {
    std::size_t const window = 64 * (2 + random() % 200);
    std::vector<std::size_t> messages(1 + random() % (window / 64 - 1));
    for (std::size_t& bytes : messages) {
      bytes = random() % (random() % 2 == 0 ? 100 : 20'000);
    }
    REQUIRE(fault_of(messages, window) == "");
  }
}

TEST_CASE("a window's bytes stay while the next ones are written, until ranks have met again") {
  sm::launch(sm::threads{2}, [](sm::ThreadsCommunicator& world) {
    auto const rank = static_cast<std::size_t>(world.rank());
    SharedWindows windows(rank, {0, 1}, std::vector<std::uint64_t>(2, sm::detail::host_id()),
                          [&world](auto bytes) { return world.all_gather(bytes, "test"); });
    CHECK(windows.reaches(rank, 1 - rank));
    CHECK(windows.reaches(1 - rank, rank));
    CHECK(!windows.reaches(rank, rank));
    for (std::uint64_t meeting = 1; meeting < 6; ++meeting) {
      auto const byte = [meeting](std::uint64_t back, std::size_t who) {
        return static_cast<std::byte>(10 * (meeting - back) + who);
      };
      std::fill_n(windows.mine(meeting), 100, byte(0, rank));
      world.barrier();  // both have written for this meeting, and may still read of the last one
      CHECK((meeting == 1 || windows.of(1 - rank, meeting - 1)[99] == byte(1, 1 - rank)));
      world.barrier();
    }
  });
}

TEST_CASE("sockets: messages go through memory that ranks share, the same with and without it" *
          doctest::skip(!SHARDMESH_TEST_MAY_FORK)) {
  for (std::string const without : {"", "1", "0 2", "0 1 2 3"}) {  // ranks that want none
    auto const status = sm::spawn_processes(4, [&without] {
      int result = 1;
      std::string const me = std::getenv("RANK");
      if (without.find(me) != std::string::npos) {
        ::setenv(SharedWindows::variable, "0", 1);
      }
      sm::launch(sm::environment{test::patience}, [&](SocketCommunicator const& world) {
        std::size_t const bytes = socket_bytes(world);
        result = exchange_often(world).empty() ? 0 : 2;
        if (without.empty() && bytes > (std::size_t{1} << 16)) {
          result = 3;
        }
        if (without.size() == 7 && bytes < (std::size_t{3} << 18)) {
          result = 4;
        }
      });
      return result;
    });
    CHECK(status == std::vector<int>(4, 0));
  }
}

TEST_CASE("sockets: ranks without a /dev/shm in common, or without room in it, say so once and use "
          "sockets" *
          doctest::skip(!SHARDMESH_TEST_MAY_FORK)) {
  constexpr int wrong = 50;
  if (sm::spawn_processes(1, [] { return mount_shm("size=64k") ? 0 : 77; })[0] != 0) {
    MESSAGE("left out: no right to mount anything here");
    return;
  }
  struct Case {
    char const* room;
    bool alone;  ///< is it rank 1 that has a /dev/shm of its own, or are all in one?
  };
  for (Case const& one :
       {Case{"size=64m", true}, {"size=64k", true}, {"size=3m", false}, {"size=1m", false}}) {
    auto const status = sm::spawn_processes(1, [&one] {
      if (!one.alone && !mount_shm(one.room)) {
        return wrong;
      }
      auto const said = sm::spawn_processes(3, [&one] {
        int result = wrong;
        if (one.alone && std::string(std::getenv("RANK")) == "1" && !mount_shm(one.room)) {
          return wrong;
        }
        Listener listener;
        sm::UseLogSink const use(listener);
        sm::launch(sm::environment{test::patience}, [&](SocketCommunicator const& world) {
          bool const good = exchange_often(world).empty();
          result = good ? listener.times : wrong;
        });
        return result;
      });
      int const most = *std::max_element(said.begin(), said.end());
      return most == 1 ? 0 : std::max(most, 1);  // nobody twice, and somebody
    });
    CHECK(status[0] == 0);
  }
}

TEST_CASE("sockets: a rank that brings other bytes than it says is refused") {
  std::byte bytes[5000]{};
  for (bool const with_offer : {true, false}) {
    std::size_t const said = with_offer ? 8 : sizeof(bytes);
    auto const errors = test::run_sockets(2, test::patience, [&](SocketCommunicator const& world) {
      sm::Message receive{1, bytes, said};
      if (world.rank() == 0) {
        world.exchange<sm::HostMemory>({}, {&receive, 1});
        return;
      }
      static_cast<void>(world.all_gather(offer_of({0, bytes, said}), "exchange"));
      if (!with_offer) {  // shares no memory, so that the message goes through rank 0
        for (std::uint32_t const step : {2U, 3U}) {
          static_cast<void>(world.all_gather(at_step(step), "exchange"));
        }
        static_cast<void>(world.all_gather(at_step(4, std::vector<std::byte>(100)), "exchange"));
      }
    });
    CHECK(errors[0] == "shardmesh::exchange: rank 1 brings " +
                           std::string(with_offer ? "0" : "100") +
                           " bytes where its messages have " + std::to_string(said) +
                           "; every rank must run the same version of the library");
    CHECK(errors[1] == "no error");
  }
}

TEST_CASE("sockets: ranks that are at different points of an exchange say so, and exchange what is "
          "right after it") {
  constexpr char const* load = "load";
  std::vector<std::byte> bytes(3 * SharedWindows::half);
  auto const errors = test::run_sockets(2, test::patience, [&](SocketCommunicator const& world) {
    bool const first = world.rank() == 0;
    auto const check_all = [&world](std::vector<std::size_t> const& sizes) {
      for (int round = 0; round < 3; ++round) {  // of both halves
        CHECK(test::exchange_all_pairs(world, sizes) == "");
      }
    };
    check_all({100'000});
    // Another call of the same name.
    if (first) {
      world.barrier(load);
    } else {
      CHECK(error_of_exchange(world, load) ==
            "shardmesh::exchange: rank 0 and rank 1 are at different points of \"load\": one of "
            "them is in another call of "
            "that name, or has failed in this one and calls again; every rank must make the same "
            "calls");
    }
    check_all({100'000});
    // Rank 1 fails in the middle of several rounds (by hand: it gives its offer and no more), and calls again.
    std::vector<std::byte> received(bytes.size());
    sm::Message receive{1, received.data(), received.size()};
    sm::Message const send{0, bytes.data(), bytes.size()};
    std::string error;
    if (first) {
      error = test::error_of<sm::MismatchError>(
          [&] { world.exchange<sm::HostMemory>({}, {&receive, 1}, {}, load); });
    } else {
      static_cast<void>(world.all_gather(offer_of(send), load));
      error = test::error_of<sm::MismatchError>(
          [&] { world.exchange<sm::HostMemory>({&send, 1}, {}, {}, load); });
    }
    CHECK(test::contains(error, "are at different points of \"load\""));
    check_all({100'000, 5});
  });
  CHECK(errors == test::Texts(2, "no error"));
}

TEST_CASE("sockets: more messages than a window takes a part of go through rank 0") {
  auto const errors = test::run_sockets(2, test::patience, [](SocketCommunicator const& world) {
    CHECK(test::exchange_all_pairs(world, std::vector<std::size_t>(9000, 4097)) == "");
  });
  CHECK(errors == test::Texts(2, "no error"));
}

TEST_SUITE_END();

}  // namespace shared_windows_test
