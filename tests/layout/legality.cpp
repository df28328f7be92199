// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/layout/legality.hpp>

#include <string>

#include <doctest/doctest.h>

namespace legality_test {

namespace sm = shardmesh;

using sm::Placement;
using sm::PlacementList;
using sm::ReduceOp;

namespace {

PlacementList partials(ReduceOp a, ReduceOp b) {
  return {Placement::partial(a), sm::Replicate{}, Placement::partial(b)};
}

std::string error_of(PlacementList const& list, std::size_t tensor_rank, std::size_t mesh_rank) {
  try {
    static_cast<void>(sm::normalised(list, tensor_rank, mesh_rank));
  } catch (sm::InvalidArgument const& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_SUITE_BEGIN("layout.legality");

TEST_CASE("normalised: dimensions count from the front, a split factor of 1 is a plain shard") {
  PlacementList const list{sm::Shard{-1}, Placement::strided(-3, 2), Placement::strided(1, 1),
                           sm::Partial<>{}};
  PlacementList const wanted{sm::Shard{2}, Placement::strided(0, 2), sm::Shard{1}, sm::Partial<>{}};
  CHECK(sm::normalised(list, 3, 4) == wanted);
  CHECK(sm::normalised(wanted, 3, 4) == wanted);
  CHECK(sm::normalised({}, 3, 0).empty());
}

TEST_CASE("normalised: exactly the dimensions from -rank to rank - 1 are in range") {
  for (int rank = 0; rank <= 3; ++rank) {
    for (int dim = -5; dim <= 5; ++dim) {
      bool const legal = dim >= -rank && dim < rank;
      std::string const error =
          error_of({sm::Replicate{}, sm::Shard{dim}}, static_cast<std::size_t>(rank), 2);
      CHECK((error == "no error") == legal);
    }
  }
  CHECK(error_of({sm::Replicate{}, sm::Shard{2}}, 2, 2) ==
        "shardmesh::Layout: Shard(2) on mesh dimension 1 is out of range for a tensor with 2 "
        "dimensions; use a dimension below the rank");
  CHECK(error_of({sm::Shard{0}}, 0, 1) ==
        "shardmesh::Layout: Shard(0) on mesh dimension 0 is out of range for a tensor with 0 "
        "dimensions; a 0-d tensor can only be replicated");
}

TEST_CASE("normalised: the number of placements and split factors are checked") {
  CHECK(error_of({sm::Shard{0}}, 1, 2) ==
        "shardmesh::Layout: 1 placements (Shard(0)) for a mesh with 2 dimensions; give one "
        "placement per mesh dimension");
  CHECK(error_of({Placement::strided(0, -3)}, 1, 1) ==
        "shardmesh::Layout: StridedShard(0, split_factor=-3) on mesh dimension 0: the split factor "
        "must be at least 1");
}

TEST_CASE("partials: one operation, or sum with avg") {
  ReduceOp const all[] = {ReduceOp::sum, ReduceOp::avg, ReduceOp::min, ReduceOp::max};
  for (ReduceOp a : all) {
    for (ReduceOp b : all) {
      bool const additive =
          (a == ReduceOp::sum || a == ReduceOp::avg) && (b == ReduceOp::sum || b == ReduceOp::avg);
      CHECK(sm::detail::partials_mix(partials(a, b)) == (a == b || additive));
    }
  }
  CHECK(error_of(partials(ReduceOp::max, ReduceOp::sum), 1, 3) ==
        "shardmesh::Placements: partial placements of one tensor must use one operation (sum and "
        "avg may be mixed), got (Partial(max), Replicate, Partial(sum))");
}

TEST_CASE("conversion: a partial target needs the same partial source in its place") {
  Placement const choices[] = {sm::Replicate{}, sm::Shard{0}, Placement::strided(0, 2),
                               sm::Partial<>{}, Placement::partial(ReduceOp::max)};
  for (Placement const& from : choices) {
    for (Placement const& to : choices) {
      bool const legal = !to.is_partial() || from == to;
      CHECK(sm::detail::conversion_is_legal(from, to) == legal);
      CHECK(sm::detail::conversion_is_legal(PlacementList{sm::Shard{0}, from},
                                            PlacementList{sm::Replicate{}, to}) == legal);
    }
  }
  CHECK_FALSE(sm::detail::conversion_is_legal(PlacementList{sm::Partial<>{}, sm::Shard{0}},
                                              PlacementList{sm::Shard{0}, sm::Partial<>{}}));
}

TEST_SUITE_END();

}  // namespace legality_test
