// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/local_part.hpp>
#include <shardmesh/tensor/sharded_tensor.hpp>

#include <algorithm>
#include <numeric>
#include <type_traits>

#include <doctest/doctest.h>

#include "../support/errors.hpp"

namespace sharded_tensor_test {

namespace sm = shardmesh;

using sm::Shape;
using sm::Tensor;
using World = sm::ThreadsCommunicator;

namespace {

/// Rows first, first + 1, ... of a tensor whose element i is i.
Tensor<float> rows(sm::index_t first, sm::index_t count, sm::index_t width) {
  Tensor<float> tensor(Shape{count, width});
  std::iota(tensor.span().begin(), tensor.span().end(), static_cast<float>(first * width));
  return tensor;
}

sm::ShardedTensor<float, World> make(World const& world, int shards, sm::index_t n) {
  World const shard = world.split(world.rank() / shards, world.rank());
  World const replicate = world.split(world.rank() % shards, world.rank());
  auto const part = sm::chunk(n, shards, shard.rank());
  return {shard, replicate, Shape{n, 3}, rows(part.lo, part.size(), 3)};
}

}  // namespace

TEST_CASE("a sharded tensor lists one shard with its offset, or none") {
  sm::launch(sm::threads{6}, [](World& world) {
    auto const tensor = make(world, 3, 4);  // 2, 2, 0 rows
    auto const shards = tensor.local_shards();
    int const place = world.rank() % 3;
    CHECK(shards.size() == (place == 2 ? 0U : 1U));
    if (place < 2) {
      CHECK(shards.front().offset == Shape{2 * place, 0});
      CHECK(shards.front().tensor.data() == tensor.to_local().data());
    }
    CHECK(tensor.to_local().shape() == Shape{place == 2 ? 0 : 2, 3});
    CHECK(tensor.is_first() == (world.rank() == 0));
  });
}

TEST_CASE("gathering a sharded tensor fills the first of all ranks, and nothing elsewhere") {
  sm::launch(sm::threads{6}, [](World& world) {
    for (sm::index_t n : {0, 1, 5, 7}) {
      auto const full = gather_to_first(make(world, 3, n));
      if (world.rank() == 0) {
        auto const expected = rows(0, n, 3);
        CHECK(full.shape() == Shape{n, 3});
        CHECK(std::equal(full.span().begin(), full.span().end(), expected.span().begin()));
      } else {
        CHECK(full.size() == 0);
      }
    }
  });
}

TEST_CASE("a local part that does not follow the chunk rule is refused") {
  sm::launch(sm::threads{2}, [](World& world) {
    World const alone = world.split(world.rank(), 0);
    auto const text = test::error_of<sm::ShapeError>(
        [&] { sm::ShardedTensor<float, World>(world, alone, Shape{4, 3}, rows(0, 3, 3)); });
    CHECK(text.find("the local tensor has shape (3, 3)") != std::string::npos);
    CHECK(text.find("has shape (2, 3)") != std::string::npos);
  });
}

TEST_CASE("local parts are read and replaced alike in every kind of tensor") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const check = [](auto const& tensor) {
      auto const zeros = sm::zeros_like(tensor);
      static_assert(std::is_same_v<decltype(zeros), std::remove_cvref_t<decltype(tensor)> const>);
      CHECK(sm::local_part(zeros).shape() == sm::local_part(tensor).shape());
      CHECK(sm::local_part(zeros).data() != sm::local_part(tensor).data());
      for (float value : sm::local_part(zeros).span()) {
        CHECK(value == 0);
      }
      auto const again = sm::with_local_part(zeros, sm::local_part(tensor));
      CHECK(sm::local_part(again).data() == sm::local_part(tensor).data());
      CHECK(again.shape() == tensor.shape());
    };
    check(rows(0, 4, 3));
    check(make(world, 2, 5));
    auto const mesh = sm::device_mesh(world, {2}, {"shard"});
    check(sm::distribute(rows(0, 4, 3), mesh, sm::placements<sm::Shard<0>>));
  });
}

TEST_CASE("a view shares elements and keeps them alive") {
  Tensor<float> part;
  {
    auto const whole = rows(0, 4, 3);
    part = Tensor<float>::view(Shape{2, 3}, {whole.storage(), whole.data() + 6});
    whole.span()[6] = 100;
  }
  CHECK(part.span()[0] == 100);
  CHECK(part.span()[5] == 11);
  CHECK(part.bytes() == 24);
}

}  // namespace sharded_tensor_test
