// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What the counters say of a redistribution whose bytes are counted by hand, on ranks that are threads and on
// processes that talk over TCP.
#include <shardmesh/core/counters.hpp>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/redistribute.hpp>

#include "../comm/ranks.hpp"
#include "../support/counted_part.hpp"

namespace counters_test {

namespace sm = shardmesh;

using test::done_in;
using test::Meeting;

TEST_SUITE_BEGIN("tensor.counters");

namespace {

/// (8, 6) floats on 2 x 2 from (Shard 0, Shard 1) to (Shard 1, Shard 0): ranks 0 and 3 keep what they have, 1 and 2
/// exchange 4 x 3 elements. Twice: the plan is made once.
template <class World, class Check>
void redistribute_twice(World const& world, Meeting& meeting, Check const& check) {
  auto const mesh = sm::device_mesh<2>(world, {2, 2});
  auto const x = sm::distribute(sm::Tensor<float>::zeros({8, 6}), mesh,
                                sm::placements<sm::Shard<0>, sm::Shard<1>>, sm::DataSource::own);
  for (bool const first : {true, false}) {
    sm::Counters const done = done_in(meeting, [&] {
      static_cast<void>(sm::redistribute(x, sm::placements<sm::Shard<1>, sm::Shard<0>>));
    });
    CHECK(done.plan_misses == (first ? 4 : 0));
    CHECK(done.plan_hits == (first ? 0 : 4));
    CHECK(done.network_bytes == 0);
    CHECK(done.storage_read_bytes == 0);
    CHECK(done.storage_written_bytes == 0);
    check(done);
  }
}

constexpr std::uint64_t by_hand = 2 * (4 * 3) * sizeof(float);

/// The words of the plans that were made.
class Plans : public sm::LogSink {
 public:
  void write(sm::LogLevel level, std::string_view line) override {
    found += level == sm::LogLevel::debug &&
             line.find("has made a plan: 1 exchanges for (8, 6) on mesh (2, 2) as (Shard(0), "
                       "Shard(1)) -> (8, 6) on mesh (2, 2) as (Shard(1), Shard(0))") !=
                 std::string_view::npos;
  }
  int found = 0;
};

}  // namespace

TEST_CASE("counters: ranks that are threads send within the process") {
  Plans plans;
  sm::UseLogSink const use(plans);
  sm::LogLevel const before = sm::log_level();
  sm::set_log_level(sm::LogLevel::debug);
  Meeting meeting(4);
  sm::launch(sm::threads{4}, [&](auto const& world) {
    redistribute_twice(world, meeting, [](sm::Counters const& done) {
      CHECK(done.collectives == 4 * 2);  // one before elements move and one behind
      CHECK(done.process_bytes == by_hand);
      CHECK(done.host_bytes == 0);
      CHECK(done.socket_sent_bytes == 0);
    });
    // What four ranks of an exchange of bytes send to each other: 3 of 4 messages go to another rank.
    std::vector<std::byte> out(100);
    std::vector<std::byte> in(400);
    sm::Counters const done = done_in(meeting, [&] {
      std::vector<sm::Message> sends;
      std::vector<sm::Message> receives;
      for (int peer = 0; peer < 4; ++peer) {
        sends.push_back({peer, out.data(), 100});
        receives.push_back({peer, in.data() + 100 * peer, 100});
      }
      world.template exchange<sm::HostMemory>(sends, receives);
    });
    CHECK(done.process_bytes == 4 * 3 * 100);
  });
  sm::set_log_level(before);
  CHECK(plans.found == 4);
}

TEST_CASE("counters: what is sent over TCP is told from what passes the connections") {
  Meeting meeting(4);
  CHECK(test::run_sockets(4, test::patience, [&](sm::SocketCommunicator const& world) {
          redistribute_twice(world, meeting, [](sm::Counters const& done) {
            CHECK(done.collectives == 4);
            CHECK(done.process_bytes == 0);
            CHECK(done.host_bytes == by_hand);
            // Everything passes rank 0, and it brings everything to everybody.
            CHECK(done.socket_sent_bytes > by_hand);
            CHECK(done.socket_received_bytes > by_hand);
          });
        }) == test::Texts(4, "no error"));
}

TEST_CASE("counters: an exchange with another host is counted apart") {
  std::byte data[7];
  std::vector<sm::Message> const sends{{1, data, 7}, {0, data, 5}};
  std::vector<sm::Message> const receives{{0, data, 5}};
  std::vector<sm::Message> const received{{0, data, 7}};
  std::vector<std::vector<std::byte>> all{
      sm::detail::pack_offer(sends, receives),
      sm::detail::pack_offer(std::vector<sm::Message>{}, received)};
  sm::Counters const before = sm::counters();
  sm::detail::Offers(all, {0, 1}).count_sent_by(0);
  sm::Counters const here = sm::counters() - before;
  CHECK(here.host_bytes == 7);
  CHECK(here.network_bytes == 0);
  sm::detail::OfferHeader header;
  std::memcpy(&header, all[1].data(), sizeof(header));
  ++header.host;
  std::memcpy(all[1].data(), &header, sizeof(header));
  sm::detail::Offers(all, {0, 1}).count_sent_by(0);
  sm::Counters const there = sm::counters() - before - here;
  CHECK(there.host_bytes == 0);
  CHECK(there.network_bytes == 7);
}

TEST_CASE("counters: meetings, the time in which a rank waits for another, and back to nothing") {
  Meeting meeting(2);
  std::atomic<bool> waited = false;
  sm::launch(sm::threads{2}, [&](auto const& world) {
    sm::Counters const done = done_in(meeting, [&] {
      for (int i = 0; i < 5; ++i) {
        static_cast<void>(sm::all_gather_value(world, i));
      }
      world.barrier();
    });
    CHECK(done.collectives == 2 * (5 + 1));
    // Until rank 0 has come first, which the machine may delay at any time.
    while (!waited) {
      sm::Counters const now = done_in(meeting, [&] {
        if (world.rank() == 1) {
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        world.barrier();
      });
      if (world.rank() == 0) {
        waited = now.waited_ns >= 1'000'000;
      }
      meeting.arrive_and_wait();
    }
  });
  CHECK(sm::counters().collectives >= 2 * 6);
  sm::reset_counters();
  CHECK(sm::counters() == sm::Counters{});
}

TEST_SUITE_END();

}  // namespace counters_test
