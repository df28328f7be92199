// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/mesh/mesh_description.hpp>

#include <array>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>

#include "../support/errors.hpp"

namespace mesh_description_test {

namespace sm = shardmesh;

using sm::MeshDescription;
using test::error_of;
using World = sm::ThreadsCommunicator;

namespace {

std::string error_in(MeshDescription const& mesh, int world) {
  return error_of<sm::InvalidArgument>([&] { sm::check(mesh, world); });
}

MeshDescription const square{{2, 2}, {"replicate", "shard"}, {0, 1, 2, 3}};

/// What `make` throws on each of four ranks.
template <class E, class Make>
std::vector<std::string> errors_of_four(Make make) {
  std::vector<std::string> errors(4);
  sm::launch(sm::threads{4}, [&](World& world) {
    errors[static_cast<std::size_t>(world.rank())] = error_of<E>([&] { make(world); });
    world.barrier();
  });
  return errors;
}

std::vector<std::string> four(std::string const& text) {
  return std::vector<std::string>(4, text);
}

}  // namespace

TEST_SUITE_BEGIN("mesh.mesh_description");

TEST_CASE("mesh_description: as text") {
  CHECK(sm::to_string(square) == "mesh (2, 2) [\"replicate\", \"shard\"] of ranks 0 1 2 3");
  CHECK(sm::to_string(MeshDescription{{3}, {}, {4, 0, 2}}) == "mesh (3) of ranks 4 0 2");
}

TEST_CASE("mesh_description: equal are those of equal shape, names and ranks") {
  MeshDescription other = square;
  CHECK(other == square);
  other.names[1] = "shards";
  CHECK_FALSE(other == square);
  other = square;
  std::swap(other.ranks[0], other.ranks[3]);
  CHECK_FALSE(other == square);
  other = square;
  other.shape = {4, 1};
  CHECK_FALSE(other == square);
}

TEST_CASE("mesh_description: dimensions are found by name") {
  CHECK(sm::dimension(square, "replicate") == 0);
  CHECK(sm::dimension(square, "shard") == 1);
  CHECK(error_of<sm::InvalidArgument>([] { static_cast<void>(sm::dimension(square, "tp")); }) ==
        "shardmesh::DeviceMesh: no dimension is named \"tp\"; the names are \"replicate\", "
        "\"shard\"");
  MeshDescription const nameless{{2}, {}, {0, 1}};
  CHECK(
      error_of<sm::InvalidArgument>([&] { static_cast<void>(sm::dimension(nameless, "tp")); }) ==
      "shardmesh::DeviceMesh: no dimension is named \"tp\"; the mesh has no names, give them when "
      "it is made");
}

TEST_CASE("mesh_description: good ones pass, those over some of the ranks too") {
  CHECK(error_in(square, 4) == "no error");
  CHECK(error_in({{2, 1}, {}, {6, 3}}, 7) == "no error");
}

TEST_CASE("mesh_description: every mistake is named with where and how to mend it") {
  CHECK(error_in({{2, 0}, {}, {}}, 4) ==
        "shardmesh::device_mesh: shape (2, 0) has a dimension without ranks; every extent must be "
        "at least 1");
  CHECK(error_in({{2, -2}, {}, {0, 1, 2, 3}}, 4) ==
        "shardmesh::device_mesh: shape (2, -2) has a dimension without ranks; every extent must be "
        "at least 1");
  CHECK(error_in({{2, 2}, {}, {0, 1, 2}}, 4) ==
        "shardmesh::device_mesh: shape (2, 2) needs 4 ranks, got 3; change the shape, or start "
        "another number of ranks");
  CHECK(error_in({{2, 2}, {"a"}, {0, 1, 2, 3}}, 4) ==
        "shardmesh::device_mesh: 1 names for 2 mesh dimensions; give one name per dimension, or "
        "none");
  CHECK(error_in({{2, 2}, {"a", "a"}, {0, 1, 2, 3}}, 4) ==
        "shardmesh::device_mesh: two dimensions are named \"a\"; names must differ");
  CHECK(error_in({{3}, {}, {0, 2, 2}}, 4) ==
        "shardmesh::device_mesh: rank 2 stands twice in mesh (3) of ranks 0 2 2; give each rank "
        "one position at most");
  for (int rank : {-1, 4}) {
    CHECK(error_in({{2}, {}, {0, rank}}, 4) ==
          "shardmesh::device_mesh: rank " + std::to_string(rank) +
              " is not one of the 4 ranks of the communicator; give numbers from 0 to 3");
  }
}

TEST_CASE("device_mesh: every rank gets the error of a mesh that does not fit") {
  CHECK(errors_of_four<sm::InvalidArgument>(
            [](World& world) { static_cast<void>(sm::device_mesh(world, {2, 3}, {"a", "b"})); }) ==
        four("shardmesh::device_mesh: shape (2, 3) needs 6 ranks, got 4; change the shape, or "
             "start another number of ranks"));
  CHECK(errors_of_four<sm::InvalidArgument>(
            [](World& world) { static_cast<void>(sm::device_mesh(world, {2}, {3, 3}, {})); }) ==
        four("shardmesh::device_mesh: rank 3 stands twice in mesh (2) of ranks 3 3; give each "
             "rank one position at most"));
}

TEST_CASE("device_mesh: ranks with different meshes all get both to see") {
  auto const shapes = errors_of_four<sm::MismatchError>([](World& world) {
    if (world.rank() == 3) {
      static_cast<void>(sm::device_mesh(world, {4, 1}));
    } else {
      static_cast<void>(sm::device_mesh(world, {2, 2}));
    }
  });
  CHECK(shapes ==
        four("shardmesh::device_mesh: ranks disagree; rank 0 has mesh (2, 2) of ranks 0 1 "
             "2 3, rank 3 has mesh (4, 1) of ranks 0 1 2 3; all ranks must pass the same "
             "arguments in the same order"));
  auto const ranks = errors_of_four<sm::MismatchError>([](World& world) {
    std::vector<int> const pair{world.rank() == 1 ? 1 : 0, 2};
    static_cast<void>(sm::device_mesh(world, {2}, pair, {"x"}));
  });
  CHECK(ranks ==
        four("shardmesh::device_mesh: ranks disagree; rank 0 has mesh (2) [\"x\"] of ranks "
             "0 2, rank 1 has mesh (2) [\"x\"] of ranks 1 2; all ranks must pass the same "
             "arguments in the same order"));
}

TEST_CASE("device_mesh: over a group the mesh has the ranks of the job") {
  sm::launch(sm::threads{6}, [](World& world) {
    World const group = world.split(world.rank() % 2, -world.rank());
    auto const mesh = sm::device_mesh(group, {3}, {2, 0, 1}, {});
    CHECK(mesh.ranks() ==
          (world.rank() % 2 == 0 ? std::vector<int>{0, 4, 2} : std::vector<int>{1, 5, 3}));
    CHECK(mesh.comm().world_ranks() == mesh.ranks());
  });
}

TEST_CASE("device_mesh_from_groups: groups with other members than their place says are refused") {
  auto const errors = errors_of_four<sm::InvalidArgument>([](World& world) {
    // Rows {0, 1} and {2, 3}; columns {0, 3} and {1, 2}: each pair of group ranks stands once, but
    // the second row would have to be turned round.
    World const row = world.split(world.rank() / 2, world.rank());
    World const column = world.split(world.rank() % 3 == 0 ? 0 : 1, world.rank());
    static_cast<void>(sm::device_mesh_from_groups(world, std::array<World, 2>{column, row}));
  });
  CHECK(errors == four("shardmesh::device_mesh_from_groups: the group of dimension 0 does not hold "
                       "the ranks that differ only there; order its ranks as those of the other "
                       "groups [rank 0]"));
}

TEST_CASE("device_mesh_from_groups: ranks that bring groups of other sizes see both") {
  auto const errors = errors_of_four<sm::MismatchError>([](World& world) {
    World const some = world.split(world.rank() < 3 ? 0 : 1, world.rank());
    static_cast<void>(sm::device_mesh_from_groups(world, std::array<World, 1>{some}));
  });
  CHECK(errors == four("shardmesh::device_mesh_from_groups: ranks disagree; rank 0 has (3), rank 3 "
                       "has (1); all ranks must pass the same arguments in the same order"));
}

TEST_SUITE_END();

}  // namespace mesh_description_test
