// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/plan/cost.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/layout/placements.hpp>

namespace cost_test {

namespace sm = shardmesh;

using sm::Layout;
using sm::PlanCost;

constexpr PlanCost cost(Layout const& from, Layout const& to, std::size_t bytes) {
  return sm::cost_of(sm::make_plan(from, to), bytes);
}

constexpr Layout rows({8, 6}, {2, 2}, sm::placements<sm::Shard<0>, sm::Shard<1>>);
constexpr Layout swapped({8, 6}, {2, 2}, sm::placements<sm::Shard<1>, sm::Shard<0>>);
constexpr Layout terms({6}, {3}, sm::placements<sm::Partial<>>);
constexpr Layout whole({6}, {3}, sm::placements<sm::Replicate>);

// The cost is known to the compiler. Ranks 1 and 2 swap a quarter of 48 elements, 0 and 3 keep theirs.
static_assert(cost(rows, swapped, 4) == PlanCost{.exchanges = 1,
                                                 .messages = 2,
                                                 .moved = 96,
                                                 .most_sent = 48,
                                                 .most_received = 48,
                                                 .most_staging = 0,
                                                 .local = 96,
                                                 .least_received = 48});
static_assert(cost(rows, rows, 4).moved == 0 && cost(rows, rows, 4).local == 192);

TEST_SUITE_BEGIN("plan.cost");

TEST_CASE("cost: an all-reduce of k ranks moves 2 (k - 1) / k of the bytes of each") {
  PlanCost const got = cost(terms, whole, 8);
  CHECK(got.exchanges == 2);
  CHECK(got.messages == 12);
  CHECK(got.moved == 2 * 2 * 6 * 8);
  CHECK(got.most_sent == 2 * 2 * 2 * 8);
  CHECK(got.most_received == 2 * 2 * 2 * 8);
  CHECK(got.most_staging == 3 * 2 * 8);
  CHECK(got.local == 2 * 6 * 8);
}

TEST_CASE("cost: a gather to one rank of another mesh loads that rank alone") {
  Layout const shards({10}, {4}, sm::placements<sm::Shard<0>>);
  Layout const one({10}, {1}, sm::placements<sm::Replicate>);
  PlanCost const got = cost(shards, one, 2);
  CHECK(got.messages == 3);
  CHECK(got.moved == 7 * 2);
  CHECK(got.most_sent == 3 * 2);
  CHECK(got.most_received == 7 * 2);
  CHECK(got.local == 3 * 2);
}

TEST_CASE("cost: several boxes to one peer are one message") {
  Layout const strided({8}, {2}, sm::PlacementList{sm::Placement::strided(0, 4)});
  Layout const shards({8}, {2}, sm::placements<sm::Shard<0>>);
  PlanCost const got = cost(strided, shards, 1);
  CHECK(sm::make_plan(strided, shards).rank_step(0, 0).sends.size() == 2);
  CHECK(got.messages == 2);
  CHECK(got.moved == 4);
}

TEST_CASE("cost: bytes grow with the element, messages do not") {
  PlanCost const small = cost(terms, whole, 1);
  PlanCost const large = cost(terms, whole, 16);
  CHECK(large.moved == 16 * small.moved);
  CHECK(large.most_staging == 16 * small.most_staging);
  CHECK(large.messages == small.messages);
}

TEST_CASE("cost: an empty tensor costs nothing") {
  Layout const from({0, 4}, {2}, sm::placements<sm::Shard<1>>);
  Layout const to({0, 4}, {2}, sm::placements<sm::Replicate>);
  CHECK(cost(from, to, 4) == PlanCost{.exchanges = 1});
}

TEST_CASE("cost: what a rank has to receive by any plan") {
  // Without terms a plan brings just what is lacking.
  Layout const replicas({8, 6}, {2, 2}, sm::placements<sm::Replicate, sm::Replicate>);
  CHECK(cost(rows, replicas, 4).least_received == 36 * 4);
  CHECK(cost(rows, replicas, 4).most_received == 36 * 4);
  CHECK(cost(replicas, rows, 4).least_received == 0);
  // With terms one number for each element of the result, of which an all-reduce brings (k - 1) / k twice.
  CHECK(cost(terms, whole, 8).least_received == 6 * 8);
  Layout const one({6}, {1}, sm::placements<sm::Partial<>>);
  CHECK(cost(one, Layout({6}, {1}, sm::placements<sm::Replicate>), 8).least_received == 0);
}

TEST_CASE("traffic: the bytes of each pair, over all exchanges") {
  using sm::PairTraffic;
  CHECK(sm::traffic_of(sm::make_plan(rows, swapped), 4) ==
        std::vector<PairTraffic>{{1, 2, 48}, {2, 1, 48}});
  auto const all = sm::traffic_of(sm::make_plan(terms, whole), 8);
  REQUIRE(all.size() == 6);
  for (PairTraffic const& pair : all) {
    CHECK(pair.bytes == 2 * 2 * 8);  // a term and a result of two elements each
  }
}

TEST_CASE("explain: of many ranks the first are listed") {
  Layout const wide({200}, {100}, sm::placements<sm::Shard<0>>);
  std::string const text = sm::explain(sm::make_plan(wide, wide), sm::DType::int8, 2);
  CHECK(text.find("  rank 1 keeps [2:4]\n  and 98 ranks\n") != std::string::npos);
}

TEST_CASE("explain: a swap in words") {
  CHECK(
      sm::explain(sm::make_plan(rows, swapped), sm::DType::float32) ==
      "exchange 1: (8, 6) on mesh (2, 2) as (Shard(0), Shard(1)) -> (Shard(1), Shard(0)) on mesh "
      "(2, 2)\n"
      "  rank 0 keeps [0:4, 0:3]\n"
      "  rank 1 -> rank 2 [0:4, 3:6]\n"
      "  rank 2 -> rank 1 [4:8, 0:3]\n"
      "  rank 3 keeps [4:8, 3:6]\n"
      "moved 96 bytes in 2 messages, at most 48 into one rank (lower bound 48); staging 0 bytes\n");
}

TEST_CASE("explain: terms of a reduction") {
  Layout const from({2}, {2}, sm::placements<sm::Partial<sm::ReduceOp::avg>>);
  Layout const to({2}, {2}, sm::placements<sm::Shard<0>>);
  CHECK(
      sm::explain(sm::make_plan(from, to), sm::DType::float64) ==
      "exchange 1: (2) on mesh (2) as (Partial(avg)) -> (Shard(0)) on mesh (2)\n"
      "  rank 0 keeps [0:1]\n"
      "  rank 0 -> rank 1 [1:2] (a term)\n"
      "  rank 0 reduces [0:1] by avg over 2\n"
      "  rank 1 keeps [1:2]\n"
      "  rank 1 -> rank 0 [0:1] (a term)\n"
      "  rank 1 reduces [1:2] by avg over 2\n"
      "moved 16 bytes in 2 messages, at most 8 into one rank (lower bound 8); staging 16 bytes\n");
}

TEST_CASE("explain: ranks of the larger of two meshes") {
  Layout const from({3}, {1}, sm::placements<sm::Replicate>);
  Layout const to({3}, {3}, sm::placements<sm::Shard<0>>);
  CHECK(sm::explain(sm::make_plan(from, to), sm::DType::int8) ==
        "exchange 1: (3) on mesh (1) as (Replicate) -> (Shard(0)) on mesh (3)\n"
        "  rank 0 keeps [0:1]\n"
        "  rank 0 -> rank 1 [1:2]\n"
        "  rank 0 -> rank 2 [2:3]\n"
        "moved 2 bytes in 2 messages, at most 1 into one rank (lower bound 1); staging 0 bytes\n");
}

TEST_SUITE_END();

}  // namespace cost_test
