// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/state/transfer.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace transfer_test {

namespace sm = shardmesh;

using sm::PlacementList;
using sm::Shape;
using sm::StateDict;
using sm::Tensor;
using World = sm::ThreadsCommunicator;

namespace {

/// A tensor of counting numbers on a mesh; on other ranks its handle.
template <class T, class Mesh>
auto counting(Mesh const& mesh, Shape const& shape, PlacementList const& list, T first) {
  Tensor<T> full(shape);
  for (std::size_t i = 0; i < full.span().size(); ++i) {
    full.span()[i] = first + static_cast<T>(i);
  }
  return sm::distribute(full, shape, mesh, list);
}

}  // namespace

TEST_SUITE_BEGIN("state.transfer");

TEST_CASE(
    "transfer of a state: every tensor, in one exchange or many, and the values of the source") {
  // How often ranks meet tells whether tensors travelled together.
  for (std::size_t const ceiling : {std::size_t{1} << 20, std::size_t{100}, std::size_t{0}}) {
    sm::launch(sm::threads{5}, [ceiling](World& world) {
      auto const training = sm::device_mesh<2>(world, {2, 2}, {1, 2, 3, 4}, {});
      auto const inference = sm::device_mesh<1>(world, {2}, {4, 0}, {});
      bool const trains = training.is_member();
      StateDict from;
      from.insert("layer.weight",
                  counting<float>(training, {6, 4}, {sm::Replicate{}, sm::Shard{0}}, 1));
      from.insert("layer.bias", counting<float>(training, {6}, {sm::Shard{0}, sm::Shard{0}}, 100));
      from.insert("count",
                  counting<std::int64_t>(training, {}, {sm::Replicate{}, sm::Replicate{}}, 7));
      from.insert("step", sm::Value(trains ? 12 : 0));
      from.insert("only in training", sm::Value(1));
      Tensor<double> rate(Shape{2});
      std::fill(rate.span().begin(), rate.span().end(), trains ? 0.5 : 0.0);
      from.insert("rate", rate);
      auto const weight = counting<float>(inference, {6, 4}, {sm::Shard{1}}, 0);
      auto const bias = counting<float>(inference, {6}, {sm::Replicate{}}, 0);
      auto const count = counting<std::int64_t>(inference, {}, {sm::Replicate{}}, 0);
      StateDict into;
      into.insert("step", sm::Value(-1));
      into.insert("layer.bias", bias);
      into.insert("layer.weight", weight);
      into.insert("count", count);
      auto const kept = Tensor<double>::zeros(Shape{2});
      into.insert("rate", kept);
      sm::transfer(world, from, into, {.ceiling_bytes = ceiling});
      CHECK(into.at("step").plain() == sm::Value(12));
      CHECK(kept.span()[1] == 0.5);
      if (inference.is_member()) {
        auto const wanted = sm::redistribute(
            counting<float>(inference, {6, 4}, {sm::Replicate{}}, 1), PlacementList{sm::Shard{1}});
        CHECK(difference(sm::AnyTensor(weight), sm::AnyTensor(wanted)).empty());
        for (std::size_t i = 0; i < 6; ++i) {
          CHECK(bias.to_local().span()[i] == 100.0F + static_cast<float>(i));
        }
        CHECK(count.to_local().span()[0] == 7);
      }
    });
  }
}

TEST_CASE("transfer of a state: what does not fit is named on every rank, and nothing is written") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const a = sm::device_mesh<1>(world, {2}, {0, 1}, {});
    auto const b = sm::device_mesh<1>(world, {1}, {2}, {});
    auto const held = counting<float>(b, {4}, {sm::Shard{0}}, 50);
    auto const refused = [&](sm::StateValue source, sm::StateValue target, char const* words) {
      StateDict from;
      from.insert("good", counting<float>(a, {4}, {sm::Shard{0}}, 0));
      from.insert("bad", std::move(source));
      StateDict into;
      into.insert("good", held);
      into.insert("bad", std::move(target));
      INFO(words);
      CHECK_THROWS_WITH_AS(sm::transfer(world, from, into), doctest::Contains(words),
                           sm::InvalidArgument);
    };
    auto const row = counting<float>(a, {4}, {sm::Shard{0}}, 0);
    refused(row, counting<float>(b, {5}, {sm::Shard{0}}, 0),
            "\"bad\" is float32 (4) in the source and float32 (5)");
    refused(row, counting<double>(b, {4}, {sm::Shard{0}}, 0), "and float64 (4) in the target");
    refused(row, Tensor<float>(Shape{4}), "\"bad\" has a mesh in one state and none in the other");
    refused(row, sm::Value(3), "a tensor in one state and a plain value in the other");
    StateDict from;
    StateDict into;
    into.insert("good", held);
    into.insert("more", sm::Value(1));
    CHECK_THROWS_WITH_AS(sm::transfer(world, from, into),
                         doctest::Contains("the source has no \"good\", \"more\""), sm::Error);
    for (std::size_t i = 0; i < held.to_local().span().size(); ++i) {
      CHECK(held.to_local().span()[i] == 50.0F + static_cast<float>(i));
    }
  });
}

TEST_CASE("transfer of a state: ranks whose whole tensors differ in shape are told both sides") {
  std::atomic<int> told{0};
  CHECK_THROWS_AS(sm::launch(sm::threads{2},
                             [&](World& world) {
                               auto const a = sm::device_mesh<1>(world, {1}, {0}, {});
                               auto const b = sm::device_mesh<1>(world, {1}, {1}, {});
                               Shape const shape{world.rank() == 0 ? 2 : 1000};
                               StateDict from;
                               from.insert("w", counting<float>(a, {4}, {sm::Shard{0}}, 0));
                               from.insert("scale", Tensor<float>::zeros(shape));
                               StateDict into;
                               into.insert("w", counting<float>(b, {4}, {sm::Shard{0}}, 0));
                               into.insert("scale", Tensor<float>::zeros(shape));
                               try {
                                 sm::transfer(world, from, into);
                               } catch (sm::MismatchError const& error) {
                                 std::string const what = error.what();
                                 told += what.find("\"scale\" float32 (2)") != std::string::npos &&
                                         what.find("\"scale\" float32 (1000)") != std::string::npos;
                                 throw;
                               }
                             }),
                  sm::Error);
  CHECK(told.load() == 2);
}

TEST_SUITE_END();

}  // namespace transfer_test
