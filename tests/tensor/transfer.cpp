// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/transfer.hpp>

#include <atomic>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "../support/sanitizers.hpp"
#include "../support/transfer_cases.hpp"

namespace transfer_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;

TEST_SUITE_BEGIN("tensor.transfer");

TEST_CASE("transfer: random pairs of meshes, apart, overlapping and the same, up to 8 ranks") {
  std::atomic<long> cases{0};
  int const pairs = test::sanitized ? 40 : 320;
  for (int const ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
    for (unsigned seed = 0; seed < 4; ++seed) {
      sm::launch(sm::threads{ranks}, [&](World& world) {
        auto const report = test::run_transfers<sm::HostMemory>(
            world, 100 * seed + static_cast<unsigned>(ranks), 12, pairs);
        INFO(report.first_wrong);
        CHECK(report.wrong == 0);
        cases += world.rank() == 0 ? report.cases : 0;
      });
    }
  }
  MESSAGE(cases.load() << " cases");
  CHECK(cases.load() == 4 * 8 * pairs);
}

TEST_CASE("transfer: from training to inference, where the ranks are others") {
  sm::launch(sm::threads{6}, [](World& world) {
    auto const training = sm::device_mesh<2>(world, {2, 2}, {0, 1, 2, 3}, {"replicate", "shard"});
    auto const inference = sm::device_mesh<1>(world, {2}, {4, 5}, {"tp"});
    auto full = sm::Tensor<float>(sm::Shape{6, 4});
    for (std::size_t i = 0; i < full.span().size(); ++i) {
      full.span()[i] = static_cast<float>(i);
    }
    auto const weights =
        sm::distribute(full, full.shape(), training, sm::placements<sm::Replicate, sm::Shard<0>>);
    auto const there = sm::transfer(weights, inference, sm::placements<sm::Shard<1>>);
    CHECK(there.mesh().is_member() == (world.rank() >= 4));
    if (world.rank() >= 4) {
      auto const local = there.to_local();
      REQUIRE(local.shape() == sm::Shape{6, 2});
      for (std::size_t i = 0; i < local.span().size(); ++i) {
        auto const column = 2 * static_cast<std::size_t>(world.rank() - 4) + i % 2;
        CHECK(local.span()[i] == static_cast<float>(i / 2 * 4 + column));
      }
    }
  });
}

TEST_CASE("transfer: plans are kept, and ranks of neither mesh do nothing") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const a = sm::device_mesh<1>(world, {1}, {0}, {});
    auto const b = sm::device_mesh<1>(world, {1}, {2}, {});
    auto const x = sm::distribute(sm::Tensor<float>(sm::Shape{4}), a, sm::placements<sm::Shard<0>>);
    for (int i = 0; i < 3; ++i) {
      CHECK(sm::transfer(x, b, sm::placements<sm::Replicate>).to_local().size() ==
            (world.rank() == 2 ? 4 : 0));
    }
    CHECK(b.plans().hits() == 2);
  });
}

TEST_CASE("transfer: what cannot be is refused on every rank, and named") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh<1>(world, {2}, {0, 1}, {});
    auto const other = sm::device_mesh<1>(world, {2}, {2, 3}, {});
    auto const x =
        sm::distribute(sm::Tensor<float>(sm::Shape{4}), mesh, sm::placements<sm::Shard<0>>);
    CHECK_THROWS_WITH_AS(static_cast<void>(sm::transfer(x, other, sm::placements<sm::Partial<>>)),
                         doctest::Contains("cannot become partial on another mesh"),
                         sm::InvalidArgument);
    CHECK_THROWS_WITH_AS(static_cast<void>(sm::transfer(x, other, sm::placements<sm::Shard<1>>)),
                         doctest::Contains("Shard(1)"), sm::InvalidArgument);
    World const half = world.split(world.rank() / 2, world.rank());
    auto const apart = sm::device_mesh(half, {2});
    CHECK_THROWS_WITH_AS(static_cast<void>(sm::transfer(x, apart, sm::placements<sm::Shard<0>>)),
                         doctest::Contains("were made over different communicators"),
                         sm::InvalidArgument);
  });
}

TEST_CASE("transfer: ranks that disagree are told both sides") {
  std::atomic<int> told{0};
  CHECK_THROWS_AS(
      sm::launch(sm::threads{2},
                 [&](World& world) {
                   auto const a = sm::device_mesh<1>(world, {1}, {0}, {});
                   auto const b = sm::device_mesh<1>(world, {1}, {1}, {});
                   sm::Layout const layout(sm::Shape{world.rank() == 0 ? 4 : 2, 2}, sm::Shape{1},
                                           {sm::Shard{0}});
                   sm::DistTensor<float, decltype(a), sm::PlacementList> const x(
                       a, layout,
                       sm::Tensor<float>(world.rank() == 0 ? layout.shape() : sm::Shape{0}));
                   try {
                     static_cast<void>(sm::transfer(x, b, sm::placements<sm::Replicate>));
                   } catch (sm::MismatchError const& error) {
                     std::string const what = error.what();
                     told += what.find("(4, 2)") != std::string::npos &&
                             what.find("(2, 2)") != std::string::npos &&
                             what.find("shardmesh::transfer") != std::string::npos;
                     throw;
                   }
                 }),
      sm::Error);
  CHECK(told.load() == 2);
}

TEST_SUITE_END();

}  // namespace transfer_test
