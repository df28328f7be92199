// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/state/full_state_dict.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/errors.hpp"
#include "../support/fake_device.hpp"

namespace full_state_dict_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using sm::Tensor;
using test::FakeDevice;

namespace {

Tensor<float> counting(sm::Shape const& shape, float start = 0) {
  Tensor<float> tensor(shape);
  std::iota(tensor.span().begin(), tensor.span().end(), start);
  return tensor;
}

template <class Space = sm::HostMemory, class Mesh>
sm::AnyTensor sharded(sm::Shape const& shape, Mesh const& mesh, sm::PlacementList const& list) {
  return sm::distribute(counting(shape).template clone<Space>(), mesh, list);
}

bool is_counting(sm::AnyTensor const& tensor) {
  return sm::difference(tensor, sm::AnyTensor(counting(tensor.shape()))).empty();
}

}  // namespace

TEST_SUITE_BEGIN("state.full_state_dict");

TEST_CASE("full state: on chosen roots, also several, and nowhere else") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    sm::StateDict dict;
    dict.insert("a", sharded({7, 5}, mesh, {sm::Replicate{}, sm::Shard{0}}));
    dict.insert("b", sharded({3, 4}, mesh, {sm::Shard{1}, sm::Shard{0}}));
    dict.insert("lr", sm::Value(0.1));
    for (std::vector<int> const& roots :
         {std::vector<int>{}, std::vector<int>{0}, std::vector<int>{3}, std::vector<int>{1, 2}}) {
      sm::GatherReport report;
      auto const full = sm::full_state_dict(world, dict, {roots}, &report);
      bool const is_root = roots.empty()
                               ? world.rank() == 0
                               : std::find(roots.begin(), roots.end(), world.rank()) != roots.end();
      CHECK(full.size() == (is_root ? 3 : 0));
      CHECK((report.received_bytes > 0) == is_root);
      if (is_root) {
        CHECK(is_counting(full.at("a").tensor()));
        CHECK(is_counting(full.at("b").tensor()));
        CHECK(full.at("lr").plain() == sm::Value(0.1));
      }
    }
  });
}

TEST_CASE("full state: keys and their order may differ between ranks") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto const row = sm::device_mesh(world, {2, 2}, {"row", "column"})["column"];
    auto const x = sharded({5}, mesh, {sm::Shard{0}, sm::Shard{0}});
    auto const y = sharded({4, 2}, mesh, {sm::Replicate{}, sm::Shard{1}});
    auto const z = sharded({6}, row, {sm::Shard{0}});  // on half of the ranks: each its own
    sm::StateDict dict;
    std::string const own = "sparse" + std::to_string(world.rank());
    dict.insert(own, sm::AnyTensor(counting({2})));
    if (world.rank() % 2 == 0) {
      dict.insert("x", x);
      dict.insert("z", z);
      dict.insert("y", y);
    } else {
      dict.insert("z", z);
      dict.insert("y", y);
      dict.insert("x", x);
    }
    auto const full = sm::full_state_dict(world, dict);
    CHECK(full.size() == (world.rank() == 0 ? 4 : 0));
    if (world.rank() == 0) {
      for (char const* key : {"sparse0", "x", "y", "z"}) {
        CHECK(is_counting(full.at(key).tensor()));
      }
    }
    auto const everywhere = sm::replicated_state_dict(world, dict);
    CHECK(everywhere.size() == 4);
    for (std::string const& key : {own, std::string("x"), std::string("y"), std::string("z")}) {
      CHECK(is_counting(everywhere.at(key).tensor()));
    }
  });
}

TEST_CASE("full state: tied tensors are gathered once and stay tied, though a rank has no part") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {3});
    auto const tied = sharded({2, 4}, mesh, {sm::Shard{0}});  // rank 2 has no rows
    sm::StateDict dict;
    dict.insert("embedding", tied);
    dict.insert("head", tied);
    CHECK(dict.aliases().size() == (world.rank() == 2 ? 0 : 1));
    sm::GatherReport report;
    auto const full = sm::full_state_dict(world, dict, {}, &report);
    CHECK(report.received_bytes == (world.rank() == 0 ? 16 : 0));
    if (world.rank() == 0) {
      CHECK(full.aliases().size() == 1);
      CHECK(is_counting(full.at("head").tensor()));
    }
    CHECK(sm::replicated_state_dict(world, dict).aliases().size() == 1);
  });
}

TEST_CASE("full state: roots that are not there, or not the same, are refused on every rank") {
  sm::launch(sm::threads{2}, [](World& world) {
    sm::StateDict const dict;
    CHECK(test::error_of<sm::InvalidArgument>(
              [&] { static_cast<void>(sm::full_state_dict(world, dict, {{2}})); }) ==
          "shardmesh::full_state_dict: rank 2 is not one of the 2 ranks of the communicator, so "
          "it cannot be a root");
    CHECK(test::error_of<sm::MismatchError>([&] {
            static_cast<void>(sm::full_state_dict(world, dict, {{world.rank()}}));
          }).find("rank 0 has roots 0, rank 1 has roots 1") != std::string::npos);
  });
}

TEST_CASE("full state: a partial tensor on some ranks, or a tiny ceiling, is refused on all") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const mesh = sm::device_mesh<1>(world, {2}, {0, 1}, {});
    sm::StateDict dict;
    if (world.rank() < 2) {
      dict.insert(
          "g", sm::AnyTensor(sm::from_local(counting({2}), mesh, sm::placements<sm::Partial<>>)));
    }
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            static_cast<void>(sm::full_state_dict(world, dict));
          }) == "shardmesh::full_state_dict: \"g\" is (2) on mesh (2) as (Partial(sum)): a partial "
                "tensor has no whole yet; redistribute it to Shard or Replicate [rank 0]");
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            static_cast<void>(sm::full_state_dict(world, sm::StateDict{}, {{}, 31}));
          }).find("a ceiling of 31 bytes") != std::string::npos);
  });
}

TEST_CASE("full state: staging stays under the ceiling, others than the root allocate nothing") {
  sm::launch(sm::threads{4}, [](World& threads) {
    test::PackedThreads const world(threads);
    auto const mesh = sm::device_mesh(world, {2, 2});
    sm::StateDict dict;
    for (int i = 0; i < 20; ++i) {
      sm::PlacementList const list = i % 2 == 0 ? sm::PlacementList{sm::Replicate{}, sm::Shard{0}}
                                                : sm::PlacementList{sm::Shard{1}, sm::Shard{1}};
      dict.insert("t" + std::to_string(i), sharded<FakeDevice>({64, 32}, mesh, list));
    }
    std::size_t const ceiling = 6000;  // less than one tensor
    std::size_t const before = FakeDevice::use().live;
    FakeDevice::use().peak = before;
    sm::GatherReport report;
    auto const full = sm::full_state_dict(world, dict, {{0}, ceiling}, &report);
    CHECK(report.peak_staging_bytes <= ceiling);
    CHECK(FakeDevice::use().peak - before == report.peak_staging_bytes);
    CHECK(report.rounds >= (20 * 64 * 32 * 4 / 2) / (ceiling / 2));
    if (world.rank() == 0) {
      CHECK(report.peak_staging_bytes > 0);
      for (sm::StateEntry const& entry : full) {
        CHECK(entry.tensor().memory() == sm::MemoryKind::host);
        CHECK(is_counting(entry.tensor()));
      }
    } else {
      CHECK(full.empty());
      CHECK(report.peak_staging_bytes == 0);  // what they send lies in one piece
      CHECK(report.received_bytes == 0);
    }
  });
}

TEST_SUITE_END();

}  // namespace full_state_dict_test
