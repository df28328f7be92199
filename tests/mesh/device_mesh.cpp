// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>

#include <doctest/doctest.h>

namespace device_mesh_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;

TEST_SUITE_BEGIN("mesh.device_mesh");

TEST_CASE("device_mesh: an explicit rank array decides who stands where") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {3, 1, 2, 0}, {"a", "b"});
    CHECK(mesh.ranks() == std::vector<int>{3, 1, 2, 0});
    std::vector<sm::Coordinate> const at{{1, 1}, {0, 1}, {1, 0}, {0, 0}};
    CHECK(mesh.coordinate() == at[static_cast<std::size_t>(world.rank())]);
    CHECK(mesh.comm().world_ranks() == mesh.ranks());
    auto const column =
        world.rank() == 3 || world.rank() == 2 ? std::vector<int>{3, 2} : std::vector<int>{1, 0};
    CHECK(mesh.group_ranks("a") == column);
    CHECK(mesh.group("a").world_ranks() == column);
  });
}

TEST_CASE("device_mesh: ranks outside an explicit array hold an empty handle") {
  sm::launch(sm::threads{5}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {3}, {4, 0, 2}, {});
    CHECK(mesh.is_member() == (world.rank() % 2 == 0));
    if (!mesh.is_member()) {
      CHECK_THROWS_WITH_AS(static_cast<void>(mesh.comm()),
                           doctest::Contains("ask is_member() first"), sm::InvalidArgument);
    }
  });
}

TEST_CASE("device_mesh: slices of a 3-D mesh") {
  sm::launch(sm::threads{8}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2, 2}, {"pp", "dp", "tp"});
    auto const inner = mesh.slice({"dp", "tp"});
    CHECK(inner.shape() == sm::Shape{2, 2});
    CHECK(inner.names() == std::vector<std::string>{"dp", "tp"});
    int const base = world.rank() / 4 * 4;
    CHECK(inner.ranks() == std::vector<int>{base, base + 1, base + 2, base + 3});
    CHECK(inner["tp"].ranks() == mesh["tp"].ranks());
    auto const outer = mesh.flatten(std::array<std::string, 2>{"pp", "tp"}, "model");
    int const row = world.rank() / 2 % 2 * 2;
    CHECK(outer.ranks() == std::vector<int>{row, row + 1, row + 4, row + 5});
    CHECK(outer.comm().rank() == outer.coordinate()[0]);
    CHECK_THROWS_WITH_AS(static_cast<void>(mesh.slice({"tp", "dp"})),
                         doctest::Contains("comes too late"), sm::InvalidArgument);
    CHECK_THROWS_WITH_AS(static_cast<void>(mesh["ep"]),
                         doctest::Contains("the names are \"pp\", \"dp\", \"tp\""),
                         sm::InvalidArgument);
    CHECK_THROWS_WITH_AS(static_cast<void>(mesh.group(3)), doctest::Contains("out of range"),
                         sm::InvalidArgument);
  });
}

TEST_CASE("device_mesh: groups are split once and shared between copies") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"a", "b"});
    auto const copy = mesh;
    CHECK(&mesh.group(0) == &copy.group("a"));
  });
}

TEST_CASE("device_mesh: a reference to a group stays valid when others are made") {
  sm::launch(sm::threads{8}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2, 2}, {"a", "b", "c"});
    World const& first = mesh.group(0);
    std::vector<int> const before = first.world_ranks();
    static_cast<void>(mesh.group(1));
    static_cast<void>(mesh.group(2));
    static_cast<void>(mesh.slice({"a", "b"}));
    static_cast<void>(mesh.slice({"b", "c"}));
    CHECK(&first == &mesh.group(0));
    CHECK(first.world_ranks() == before);
  });
}

TEST_CASE("device_mesh_from_groups: communicators that exist become dimensions") {
  sm::launch(sm::threads{6}, [](World& world) {
    auto const replicate = world.split(world.rank() % 3, world.rank());
    auto const shard = world.split(world.rank() / 3, world.rank());
    auto const mesh = sm::device_mesh_from_groups(world, std::array<World, 2>{replicate, shard},
                                                  {"replicate", "shard"});
    CHECK(mesh.shape() == sm::Shape{2, 3});
    CHECK(mesh == sm::device_mesh(world, {2, 3}, {"replicate", "shard"}));
    CHECK_THROWS_WITH_AS(
        static_cast<void>(sm::device_mesh_from_groups(world, std::array<World, 2>{shard, shard})),
        doctest::Contains("do not arrange the 6 ranks"), sm::InvalidArgument);
  });
}

TEST_CASE("device_mesh: ranks that were given different meshes get an error that shows both") {
  CHECK_THROWS_WITH_AS(
      sm::launch(sm::threads{4},
                 [](World& world) {
                   std::string const name = world.rank() == 2 ? "shards" : "shard";
                   static_cast<void>(sm::device_mesh(world, {2, 2}, {"replicate", name}));
                 }),
      doctest::Contains("rank 0 has mesh (2, 2) [\"replicate\", \"shard\"] of ranks 0 1 2 3, "
                        "rank 2 has mesh (2, 2) [\"replicate\", \"shards\"]"),
      sm::MismatchError);
}

TEST_CASE("device_mesh: bad input gives an error that says what and how to mend it") {
  auto const error_of = [](auto make) {
    std::string text;
    try {
      sm::launch(sm::threads{4}, [&](World& world) { static_cast<void>(make(world)); });
    } catch (sm::InvalidArgument const& error) {
      text = error.what();
    }
    return text;
  };
  CHECK(error_of([](World& w) { return sm::device_mesh(w, {2, 3}); }) ==
        "shardmesh::device_mesh: shape (2, 3) needs 6 ranks, got 4; change the shape, or start "
        "another number of ranks");
  CHECK(error_of([](World& w) { return sm::device_mesh(w, {0, 3}); }).find("without ranks") !=
        std::string::npos);
  CHECK(error_of([](World& w) {
          return sm::device_mesh(w, {2, 2}, {"a"});
        }).find("1 names for 2 mesh dimensions") != std::string::npos);
  CHECK(error_of([](World& w) {
          return sm::device_mesh(w, {2, 2}, {"a", "a"});
        }).find("two dimensions are named \"a\"") != std::string::npos);
  CHECK(error_of([](World& w) {
          return sm::device_mesh(w, {2}, {1, 1}, {});
        }).find("rank 1 stands twice") != std::string::npos);
  CHECK(error_of([](World& w) {
          return sm::device_mesh(w, {2}, {1, 7}, {});
        }).find("not one of the 4 ranks") != std::string::npos);
}

TEST_SUITE_END();

}  // namespace device_mesh_test
