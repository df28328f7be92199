// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/plan/transfer.hpp>

#include <map>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/plan/moves.hpp>

namespace transfer_test {

namespace sm = shardmesh;

using sm::Box;
using sm::Layout;
using sm::LocalPlace;
using sm::RankStep;
using sm::Shape;
using sm::Transfer;

constexpr Layout two({5, 2}, {2}, sm::placements<sm::Shard<0>>);
constexpr Layout three({5, 2}, {3}, sm::placements<sm::Shard<0>>);

static_assert(sm::moves(two, three, 1).source_shape == Shape{2, 2});
static_assert(sm::moves(two, three, 2).source_shape == Shape{0});  // not in the source's mesh
static_assert(sm::moves(two, three, 2).target_shape == Shape{1, 2});

TEST_SUITE_BEGIN("plan.transfer");

TEST_CASE("transfer: a box knows its place in the sender's and the receiver's tensor") {
  // Rows 0 1 2 | 3 4 become 0 1 | 2 3 | 4.
  RankStep const step = sm::moves(two, three, 1);
  Transfer const keeps{
      .peer = 1, .box = {{3, 0}, {1, 2}}, .source = {{0, 0}, {2, 2}}, .target = {{1, 0}, {2, 2}}};
  Transfer const sends{
      .peer = 2, .box = {{4, 0}, {1, 2}}, .source = {{1, 0}, {2, 2}}, .target = {{0, 0}, {1, 2}}};
  Transfer const receives{
      .peer = 0, .box = {{2, 0}, {1, 2}}, .source = {{2, 0}, {3, 2}}, .target = {{0, 0}, {2, 2}}};
  CHECK(step.locals == std::vector<Transfer>{keeps});
  CHECK(step.sends == std::vector<Transfer>{sends});
  CHECK(step.receives == std::vector<Transfer>{receives});
  CHECK(step.reductions.empty());
  CHECK(step.staging == 0);
}

TEST_CASE("transfer: terms lie in the staging area in the order of their ranks") {
  Layout const terms({4}, {3}, sm::placements<sm::Partial<sm::ReduceOp::max>>);
  Layout const whole({4}, {3}, sm::placements<sm::Replicate>);
  RankStep const step = sm::moves(terms, whole, 1);
  CHECK(step.op == sm::ReduceOp::max);
  CHECK(step.staging == 12);
  REQUIRE(step.reductions.size() == 1);
  CHECK(step.reductions[0] == sm::Reduction{{{0}, {4}}, {{0}, {4}}, 0, 3});
  REQUIRE(step.locals.size() == 1);
  CHECK(step.locals[0].slot == 4);
  REQUIRE(step.receives.size() == 2);
  CHECK(step.receives[0].peer == 0);
  CHECK(step.receives[0].slot == 0);
  CHECK(step.receives[1].peer == 2);
  CHECK(step.receives[1].slot == 8);
  for (Transfer const& one : step.sends) {
    CHECK(one.slot == 4);  // the sender's term, in everybody's staging area
  }
}

TEST_CASE("transfer: replicas serve the receivers of their own line only") {
  Layout const from({4}, {2, 2}, sm::placements<sm::Replicate, sm::Shard<0>>);
  Layout const to({4}, {2, 2}, sm::placements<sm::Replicate, sm::Replicate>);
  for (int rank = 0; rank < 4; ++rank) {
    RankStep const step = sm::moves(from, to, rank);
    int const neighbour = rank ^ 1;
    REQUIRE(step.sends.size() == 1);
    REQUIRE(step.receives.size() == 1);
    CHECK(step.sends[0].peer == neighbour);
    CHECK(step.receives[0].peer == neighbour);
  }
}

TEST_CASE("transfer: a kept partial dimension stays apart") {
  Layout const from({4}, {2, 2}, sm::placements<sm::Partial<>, sm::Shard<0>>);
  Layout const to({4}, {2, 2}, sm::placements<sm::Partial<>, sm::Replicate>);
  RankStep const step = sm::moves(from, to, 2);
  CHECK(step.staging == 0);
  REQUIRE(step.receives.size() == 1);
  CHECK(step.receives[0].peer == 3);
}

TEST_CASE("transfer: receivers are served in ring order, starting behind the sender") {
  Layout const from({4}, {4}, sm::placements<sm::Shard<0>>);
  Layout const to({4}, {4}, sm::placements<sm::Replicate>);
  RankStep const step = sm::moves(from, to, 2);
  std::vector<int> peers;
  for (Transfer const& one : step.sends) {
    peers.push_back(one.peer);
  }
  CHECK(peers == std::vector<int>{3, 0, 1});
}

TEST_CASE("transfer: boxes of a pair stand in the same order on both sides") {
  Layout const from({24, 5}, {3}, sm::PlacementList{sm::Placement::strided(0, 4)});
  Layout const to({24, 5}, {3}, sm::PlacementList{sm::Placement::strided(0, 2)});
  std::map<std::pair<int, int>, std::vector<Box>> sent;
  std::map<std::pair<int, int>, std::vector<Box>> received;
  for (int rank = 0; rank < 3; ++rank) {
    RankStep const step = sm::moves(from, to, rank);
    for (Transfer const& one : step.sends) {
      sent[{rank, one.peer}].push_back(one.box);
    }
    for (Transfer const& one : step.receives) {
      received[{one.peer, rank}].push_back(one.box);
    }
  }
  CHECK(sent == received);
  bool several = false;
  for (auto const& [pair, boxes] : sent) {
    several = several || boxes.size() > 1;
  }
  CHECK(several);
}

TEST_SUITE_END();

}  // namespace transfer_test
