// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What is saved is what is loaded, on any other mesh; what cannot be saved leaves nothing behind.
#include <shardmesh/checkpoint/detail/item_text.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.save");

TEST_CASE("what a rank offers travels as text and comes back as it was") {
  sm::SaveItem tensor;
  tensor.key = "model.weight";
  tensor.path = {"model", sm::index_t{3}, "weight"};
  tensor.dtype = sm::DType::bfloat16;
  tensor.shape = {7, 5};
  tensor.box = {{4, 0}, {3, 5}};
  tensor.length = 1234;
  sm::SaveItem plain;
  plain.key = "step";
  plain.path = {"step"};
  plain.length = 99;
  auto const back = sm::detail::unpack_items(sm::detail::pack_items({tensor, plain}));
  REQUIRE(back.size() == 2);
  CHECK(back[0].key == tensor.key);
  CHECK(back[0].path == tensor.path);
  CHECK(back[0].dtype == tensor.dtype);
  CHECK(back[0].shape == tensor.shape);
  CHECK(back[0].box == tensor.box);
  CHECK(back[0].length == 1234);
  CHECK(back[1].path == plain.path);
  CHECK_FALSE(back[1].dtype.has_value());
  CHECK(back[1].length == 99);
}

namespace {

sm::Placement const r = sm::Replicate{};
sm::Placement const s0 = sm::Shard{0};
sm::Placement const s1 = sm::Shard{1};

/// The state of fixture `name` on a mesh, loaded.
template <class Mesh, class World>
sm::StateDict loaded(World const& world,
                     std::string const& directory,
                     Mesh const& mesh,
                     sm::PlacementList const& list) {
  sm::DcpCatalog<> const catalog(directory);
  sm::StateDict dict = test::unset_state(catalog, mesh, list);
  sm::load(world, directory, dict);
  return dict;
}

}  // namespace

TEST_CASE("a saved state is bit-equal on every other mesh and under every placement") {
  test::Scratch const scratch;
  for (std::string const name : {"dtypes", "hsdp_fsdp2", "torch_2_15_mixed"}) {
    for (sm::PlacementList const& list :
         {sm::PlacementList{r, s0}, sm::PlacementList{s0, s0}, sm::PlacementList{s1, s0},
          sm::PlacementList{sm::Placement::strided(0, 2), s0}, sm::PlacementList{r, r}}) {
      std::string const directory = scratch / (name + to_string(list));
      sm::launch(sm::threads{4}, [&](auto& world) {
        auto const mesh = sm::device_mesh<2>(world, {2, 2});
        sm::save(world, directory, loaded(world, test::fixture(name), mesh, list));
      });
      sm::launch(sm::threads{3}, [&](auto& world) {
        auto const mesh = sm::device_mesh<1>(world, {3});
        sm::StateDict const dict = loaded(world, directory, mesh, {s0});
        auto whole = test::references(name);
        CHECK(test::difference_from(whole, dict, {world.rank()}) == "");
      });
    }
  }
}

TEST_CASE("plain values of every kind come back as they were") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::StateDict dict;
    dict.insert("none", sm::Value());
    dict.insert("flag", sm::Value(true));
    dict.insert("count", sm::Value(std::int64_t{1} << 40));
    dict.insert("rate", sm::Value(0.1));
    dict.insert("name", sm::Value(std::string("net \"1\"")));
    dict.insert("list", sm::Value(sm::Value::List{sm::Value(1), sm::Value(sm::Value::List{})}));
    dict.insert("nested", sm::Value(sm::Value::Dict{{"a", sm::Value(2.5)}, {"b", sm::Value()}}));
    sm::save(world, scratch / "values", dict);
    sm::StateDict copy;
    for (sm::StateEntry const& entry : dict) {
      copy.insert(entry.path, sm::Value(std::string("unset")));
    }
    sm::load(world, scratch / "values", copy);
    CHECK(sm::difference(copy, dict) == "");
  });
}

TEST_CASE("tensors of a rank alone, empty and 0-d tensors, ranks outside the mesh") {
  test::Scratch const scratch;
  auto const make = [](auto& world, float value) {
    auto const mesh = sm::device_mesh<1>(world, {2}, {0, 1}, {"d"});
    sm::StateDict dict;
    sm::Tensor<float> scalar(sm::Shape{});
    scalar.span()[0] = value;
    dict.insert("scalar", scalar);
    dict.insert("empty", test::unset_tensor(sm::DType::int64, {0, 4}, mesh, {s0}));
    sm::Tensor<float> whole({5});
    std::iota(whole.span().begin(), whole.span().end(), value);
    dict.insert("few", sm::distribute(whole, mesh, sm::PlacementList{s0}));
    dict.insert("rank" + std::to_string(world.rank()), sm::Value(world.rank()));
    return dict;
  };
  sm::launch(sm::threads{3}, [&](auto& world) {
    sm::StateDict const dict = make(world, 3);
    sm::save(world, scratch / "few", dict);
    sm::StateDict copy = make(world, 100);
    sm::load(world, scratch / "few", copy);
    CHECK(sm::difference(copy, dict) == "");
  });
}

TEST_CASE("a save replaces an older checkpoint, and a save that fails leaves it") {
  test::Scratch const scratch;
  std::string const directory = scratch / "deep/er/run";
  auto const entry = [](auto const& mesh, float value) {
    sm::Tensor<float> whole({4});
    std::fill(whole.span().begin(), whole.span().end(), value);
    return sm::StateDict{{"m", [&] {
                            sm::StateDict dict;
                            dict.insert("w", sm::distribute(whole, mesh, sm::PlacementList{s0}));
                            return dict;
                          }()}};
  };
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::save(world, directory, entry(mesh, 1));
    sm::save(world, directory + "/", entry(mesh, 2));
    sm::StateDict partial = entry(mesh, 3);
    partial.insert("p", test::unset_tensor(sm::DType::float32, {2}, mesh, {sm::Partial<>{}}));
    CHECK_THROWS_WITH_AS(sm::save(world, directory, partial), doctest::Contains("redistribute it"),
                         sm::InvalidArgument);
    sm::StateDict own;
    own.insert("w", sm::Tensor<float>(sm::Shape{world.rank() + 1}));
    CHECK_THROWS_WITH_AS(sm::save(world, directory, own),
                         doctest::Contains("different things as \"w\""), sm::ShapeError);
    sm::StateDict dict = entry(mesh, 0);
    sm::load(world, directory, dict);
    CHECK(sm::difference(dict, entry(mesh, 2)) == "");
  });
  std::vector<std::string> const names = sm::PosixStorage::list(scratch / "deep/er");
  CHECK(names == std::vector<std::string>{"run"});
}

TEST_CASE("save refuses a directory that is no checkpoint and a place that it cannot write") {
  test::Scratch const scratch;
  sm::PosixStorage::make_directory(scratch / "notes");
  test::spit(scratch / "notes/thesis.txt", "work of years");
  test::spit(scratch / "file", "");
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::StateDict dict;
    dict.insert("step", sm::Value(1));
    bool refused = false;
    try {
      sm::save(world, scratch / "notes", dict);
    } catch (sm::Error const& error) {
      refused = std::string(error.what()).find("is no checkpoint") != std::string::npos;
    }
    CHECK(refused);
    CHECK_THROWS_AS(sm::save(world, scratch / "file/below", dict), sm::Error);
  });
  CHECK(test::slurp(scratch / "notes/thesis.txt") == "work of years");
}

TEST_CASE("plan_save: replicas are written once, spread by bytes; values by the lowest rank") {
  auto const box = [](std::string key, sm::index_t from, sm::index_t count, std::uint64_t bytes) {
    return sm::SaveItem{
        key,  {key}, sm::DType::float32, sm::Shape{8}, sm::Box{sm::Shape{from}, sm::Shape{count}},
        bytes};
  };
  sm::SaveItem const value{"v", {"v"}, std::nullopt, {}, {}, 10};
  std::vector<sm::SaveItem> const both{box("a", 0, 8, 100), value, box("b", 0, 8, 60),
                                       box("c", 0, 8, 30)};
  auto const plan = sm::plan_save({both, both});
  REQUIRE(plan.size() == 4);
  CHECK((plan[0].rank == 0 && plan[0].offset == 10));  // behind the value
  CHECK((plan[1].rank == 0 && plan[1].offset == 0));
  CHECK((plan[2].rank == 1 && plan[2].offset == 0));
  CHECK((plan[3].rank == 1 && plan[3].offset == 60));
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::plan_save({{box("a", 0, 4, 1)}, {box("a", 3, 5, 1)}})),
                       doctest::Contains("overlap"), sm::ShapeError);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::plan_save({{box("a", 0, 4, 1)}, {}})),
                       doctest::Contains("4 of its 8 elements"), sm::ShapeError);
}

TEST_SUITE_END();
