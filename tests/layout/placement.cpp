// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/layout/placement.hpp>
#include <shardmesh/layout/placements.hpp>

#include <doctest/doctest.h>

namespace placement_test {

namespace sm = shardmesh;

using sm::Placement;
using sm::PlacementKind;
using sm::PlacementList;
using sm::ReduceOp;

static_assert(Placement{}.is_replicate() && Placement(sm::Replicate{}) == Placement{});
static_assert(Placement(sm::Shard<2>{}).is_shard() && Placement(sm::Shard<2>{}).dim == 2);
static_assert(Placement(sm::Shard<2>{}) == Placement(sm::Shard{2}));
static_assert(Placement(sm::Shard{-1}).dim == -1);
static_assert(Placement(sm::StridedShard<1, 4>{}) == Placement::strided(1, 4));
static_assert(Placement::strided(1, 4).is_shard());
static_assert(Placement::strided(1, 4).kind == PlacementKind::strided_shard);
static_assert(!(Placement::strided(1, 4) == Placement(sm::Shard{1})));
static_assert(Placement(sm::Partial<ReduceOp::max>{}) == Placement::partial(ReduceOp::max));
static_assert(Placement::partial(ReduceOp::avg).is_partial());
static_assert(!(Placement::partial(ReduceOp::avg) == Placement(sm::Partial<>{})));

static_assert(sm::StaticPlacement<sm::Replicate> && sm::StaticPlacement<sm::Shard<0>>);
static_assert(!sm::StaticPlacement<sm::Shard<>> && !sm::StaticPlacement<Placement>);
using Hybrid = sm::Placements<sm::Replicate, sm::Shard<0>>;
static_assert(Hybrid::rank == 2 && Hybrid::list() == PlacementList{sm::Replicate{}, sm::Shard{0}});
static_assert(sm::StaticPlacements<Hybrid const&> && !sm::StaticPlacements<PlacementList>);
static_assert(sm::PlacementTuple<Hybrid> && sm::PlacementTuple<PlacementList const&>);
static_assert(!sm::PlacementTuple<Placement>);
static_assert(sm::to_list(sm::placements<sm::Replicate, sm::Shard<0>>) == Hybrid::list());

TEST_SUITE_BEGIN("layout.placement");

TEST_CASE("placement: as text") {
  CHECK(sm::to_string(Placement{}) == "Replicate");
  CHECK(sm::to_string(Placement(sm::Shard{-2})) == "Shard(-2)");
  CHECK(sm::to_string(Placement::strided(0, 2)) == "StridedShard(0, split_factor=2)");
  CHECK(sm::to_string(Placement(sm::Partial<>{})) == "Partial(sum)");
  CHECK(sm::to_string(Placement::partial(ReduceOp::avg)) == "Partial(avg)");
  CHECK(sm::to_string(PlacementList{}) == "()");
  CHECK(sm::to_string(PlacementList{sm::Replicate{}, sm::Shard{1}}) == "(Replicate, Shard(1))");
}

TEST_CASE("placement: more mesh dimensions than supported are refused") {
  PlacementList list(8, Placement{});
  CHECK_THROWS_WITH_AS(list.push_back({}), doctest::Contains("at most 8 are supported"),
                       sm::ShapeError);
}

TEST_SUITE_END();

}  // namespace placement_test
