// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/convert.hpp>
#include <shardmesh/tensor/fused_exchange.hpp>

#include <vector>

#include <doctest/doctest.h>

namespace fused_exchange_test {

namespace sm = shardmesh;

using sm::PlacementList;
using sm::Shape;
using sm::Tensor;
using World = sm::ThreadsCommunicator;

TEST_SUITE_BEGIN("tensor.fused_exchange");

TEST_CASE("tensors of different shapes and numbers of stages travel together, again and again") {
  for (int ranks : {1, 2, 3, 5}) {
    sm::launch(sm::threads{ranks}, [ranks](World& world) {
      Shape const mesh{ranks};
      PlacementList const terms{sm::Placement::partial(sm::ReduceOp::sum)};
      PlacementList const whole{sm::Replicate{}};
      PlacementList const cut{sm::Shard{0}};
      // The first is reduced in two stages if there are enough ranks, the second and third in one.
      std::vector<sm::Plan> const plans{
          sm::make_plan({Shape{7, 3}, mesh, terms}, {Shape{7, 3}, mesh, whole}),
          sm::make_plan({Shape{}, mesh, terms}, {Shape{}, mesh, whole}),
          sm::make_plan({Shape{4, 2}, mesh, whole}, {Shape{4, 2}, mesh, cut})};
      sm::FusedExchange const exchange("test", "tensors", plans, world.rank());
      CHECK(exchange.size() == 3);
      auto const part = sm::chunk(4, ranks, world.rank());
      for (int round = 1; round <= 2; ++round) {
        std::vector<Tensor<float>> sources{Tensor<float>(Shape{7, 3}), Tensor<float>(Shape{}),
                                           Tensor<float>(Shape{4, 2})};
        float const mine = static_cast<float>(round * (world.rank() + 1));
        for (auto const& source : sources) {
          for (std::size_t i = 0; i < source.span().size(); ++i) {
            source.span()[i] = source.shape() == Shape{4, 2} ? static_cast<float>(i) : mine;
          }
        }
        std::vector<Tensor<float>> const targets{Tensor<float>(Shape{7, 3}), Tensor<float>(Shape{}),
                                                 Tensor<float>(Shape{part.size(), 2})};
        exchange.run(world, sources, targets);
        float const sum = static_cast<float>(round * ranks * (ranks + 1) / 2);
        for (float value : targets[0].span()) {
          CHECK(value == sum);
        }
        CHECK(targets[1].span()[0] == sum);
        for (std::size_t i = 0; i < targets[2].span().size(); ++i) {
          CHECK(targets[2].span()[i] == static_cast<float>(part.lo * 2) + static_cast<float>(i));
        }
      }
    });
  }
}

TEST_CASE("a tensor converts into other element types; into its own it is itself") {
  auto const tensor = Tensor<float>::from(Shape{2}, std::vector<float>{1.5F, -2.25F});
  CHECK(sm::convert<float>(tensor).data() == tensor.data());
  auto const half = sm::convert<sm::BFloat16>(tensor);
  CHECK(half.shape() == Shape{2});
  CHECK(half.span()[1] == sm::BFloat16(-2.25F));
}

TEST_SUITE_END();

}  // namespace fused_exchange_test
