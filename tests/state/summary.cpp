// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The visitors that look: count, the table, the checksum.
#include <shardmesh/state/checksum.hpp>
#include <shardmesh/state/summary.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/errors.hpp"

namespace summary_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using sm::Tensor;

namespace {

Tensor<float> counting(sm::Shape const& shape, float start = 0) {
  Tensor<float> tensor(shape);
  std::iota(tensor.span().begin(), tensor.span().end(), start);
  return tensor;
}

template <class P>
struct Net {
  P weight;
  P tied = weight;
  Tensor<double> mean = Tensor<double>::zeros({3});
  int epoch = 7;
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
    v("tied", tied);
    v("mean", sm::buffer(mean));
    v("epoch", epoch);
  }
};

}  // namespace

TEST_SUITE_BEGIN("state.summary");

TEST_CASE("count: parameters of a model, tensors of a state; tied ones once; whole and local") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    Net model{sm::distribute(counting({5, 4}), mesh, sm::placements<sm::Shard<0>>)};
    sm::index_t const rows = world.rank() == 0 ? 3 : 2;
    CHECK(sm::count(model) == sm::StateSize{1, 20, 80, 4 * rows, 16 * rows});
    CHECK(sm::count(sm::state_dict(model)) ==
          sm::StateSize{2, 23, 104, 4 * rows + 3, 16 * rows + 24});
  });
}

TEST_CASE("the table: a line a value, in columns") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2}, {"shard"});
    Net model{sm::distribute(counting({5, 4}), mesh, sm::placements<sm::Shard<0>>)};
    auto dict = sm::state_dict(model);
    dict.insert("flat", sm::AnyTensor(sm::ShardedTensor<float, World>(
                            world, world.split(world.rank(), 0), sm::Shape{2}, counting({1}))));
    if (world.rank() == 0) {
      CHECK(sm::to_string(dict) ==
            "name    dtype    shape   local   memory  placements\n"
            "weight  float32  (5, 4)  (3, 4)  host    (Shard(0)) on mesh (2) [\"shard\"] of ranks "
            "0 1\n"
            "tied    float32  (5, 4)  (3, 4)  host    (Shard(0)) on mesh (2) [\"shard\"] of ranks "
            "0 1, "
            "tied to weight\n"
            "mean    float64  (3)     (3)     host    plain\n"
            "epoch   int                              7\n"
            "flat    float32  (2)     (1)     host    sharded over 2 ranks\n");
    }
  });
}

TEST_CASE("checksum: the same for every way to shard, another for every change") {
  std::vector<std::uint64_t> sums;
  Net<Tensor<float>> plain{counting({7, 5})};
  sm::launch(sm::threads{1}, [&](World& world) { sums.push_back(sm::checksum(world, plain)); });
  for (int const ranks : {2, 4, 6}) {
    sm::launch(sm::threads{ranks}, [&](World& world) {
      auto const mesh = sm::device_mesh(world, {2, ranks / 2});
      sm::StateDict all;
      for (sm::PlacementList const& list :
           {sm::PlacementList{sm::Replicate{}, sm::Replicate{}},
            sm::PlacementList{sm::Replicate{}, sm::Shard{0}},
            sm::PlacementList{sm::Shard{1}, sm::Shard{0}},
            sm::PlacementList{sm::Placement::strided(0, 2), sm::Shard{0}}}) {
        Net model{sm::distribute(counting({7, 5}), mesh, list)};
        auto const sum = sm::checksum(world, model);
        CHECK(sm::all_gather_value(world, sum) ==
              std::vector<std::uint64_t>(static_cast<std::size_t>(ranks), sum));
        CHECK(sum == sums.front());
      }
      // Without a mesh, in two replicas.
      auto const shard = world.split(world.rank() / (ranks / 2), world.rank());
      auto const replicate = world.split(world.rank() % (ranks / 2), world.rank());
      auto const rows = sm::chunk(7, ranks / 2, shard.rank());
      Net model{sm::ShardedTensor<float, World>(
          shard, replicate, sm::Shape{7, 5},
          counting({rows.size(), 5}, static_cast<float>(5 * rows.lo)))};
      CHECK(sm::checksum(world, model) == sums.front());
      // Plain values that only some ranks have count once each, whoever has them.
      sm::StateDict mine;
      mine.insert(world.rank() == 0 ? "sparse0" : "sparse1", sm::AnyTensor(counting({2})));
      sm::StateDict both;
      both.insert("sparse0", sm::AnyTensor(counting({2})));
      both.insert("sparse1", sm::AnyTensor(counting({2})));
      CHECK(sm::checksum(world, mine) == sm::checksum(world, both));
    });
  }
  sm::launch(sm::threads{1}, [&](World& world) {
    auto const sum_of = [&](auto change) {
      Net<Tensor<float>> other{counting({7, 5})};
      change(other);
      return sm::checksum(world, other);
    };
    CHECK(sum_of([](auto&) {}) == sums.front());
    sums.push_back(sum_of([](auto& net) { net.weight.span()[34] += 1; }));
    sums.push_back(
        sum_of([](auto& net) { std::swap(net.weight.span()[0], net.weight.span()[1]); }));
    sums.push_back(sum_of([](auto& net) { net.epoch = 8; }));
    sums.push_back(sum_of([](auto& net) { net.mean.span()[2] = -0.0; }));
    sums.push_back(sum_of([](auto& net) { net.weight = counting({5, 7}); }));
    std::sort(sums.begin(), sums.end());
    CHECK(std::unique(sums.begin(), sums.end()) == sums.end());
  });
}

TEST_CASE("checksum: a partial tensor is refused on every rank") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    sm::StateDict dict;
    dict.insert("grad",
                sm::AnyTensor(sm::from_local(counting({2}), mesh, sm::placements<sm::Partial<>>)));
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            static_cast<void>(sm::checksum(world, dict));
          }).find("\"grad\" is (2) on mesh (2) as (Partial(sum)): a partial tensor") !=
          std::string::npos);
  });
}

TEST_SUITE_END();

}  // namespace summary_test
