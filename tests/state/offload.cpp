// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/tensor/pooled.hpp>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <numeric>
#include <string>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/memory/host_pool.hpp>
#include <shardmesh/memory/pmr_resource.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/fake_device.hpp"
#include "../support/offload_cases.hpp"
#include "../support/sample.hpp"

namespace offload_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("state.offload");

TEST_CASE("B10 offload equivalence: 6,000 random tensors on 1 to 8 ranks") {
  std::size_t const other = test::sanitized ? test::sample_seed() : 0;
  int const tensors = test::sanitized ? 150 : 1000;
  for (int const ranks : {1, 2, 3, 4, 6, 8}) {
    sm::launch(sm::threads{ranks}, [&](sm::ThreadsCommunicator& world) {
      auto const seed = static_cast<unsigned>(100 * ranks) + static_cast<unsigned>(other);
      CHECK(test::b10_offload_equivalence<test::FakeDevice>(world, seed, tensors) == "");
    });
  }
}

namespace {

constexpr std::size_t mebi = std::size_t{1} << 20;

sm::Tensor<float> numbers(sm::Shape const& shape) {
  sm::Tensor<float> tensor(shape);
  std::iota(tensor.span().begin(), tensor.span().end(), 1.0F);
  return tensor;
}

/// A tensor of 4 MiB and 300 of half a KiB.
sm::StateDict few_and_many() {
  sm::StateDict dict;
  auto const insert = [&dict](std::string const& name, sm::Shape const& shape) {
    sm::Tensor<float> tensor(shape);
    std::iota(tensor.span().begin(), tensor.span().end(), static_cast<float>(dict.size()));
    dict.insert(name, tensor);
  };
  insert("large", {1024, 1024});
  for (int i = 0; i < 300; ++i) {
    insert(sm::detail::concat("small.", std::to_string(i)), {128});
  }
  return dict;
}

}  // namespace

TEST_CASE("an offloaded state comes from the pool, in few blocks, and goes back to it") {
  sm::StateDict const dict = few_and_many();
  std::size_t const before = sm::host_pool().in_use();
  {
    sm::StateDict const copy = sm::offloaded(dict);
    CHECK(sm::difference(dict, copy) == "");
    CHECK(sm::host_pool().in_use() >= before + 4 * mebi);
    CHECK(sm::host_pool().in_use() <= before + 5 * mebi);
    int beside = 0;  // the tensor before it
    for (int i = 1; i < 300; ++i) {
      auto const data_of = [&](int n) {
        return static_cast<std::byte const*>(
            copy.at(sm::detail::concat("small.", std::to_string(n))).tensor().data());
      };
      beside += data_of(i) == data_of(i - 1) + 512 ? 1 : 0;
    }
    CHECK(beside >= 290);
  }
  CHECK(sm::host_pool().in_use() == before);
  std::size_t const all = before + sm::host_pool().idle();
  for (int i = 0; i < 3; ++i) {
    CHECK(sm::difference(dict, sm::offloaded(dict)) == "");
  }
  CHECK(sm::host_pool().in_use() + sm::host_pool().idle() == all);  // nothing was mapped anew
  std::pmr::synchronized_pool_resource upstream;
  sm::PmrResource own(upstream);
  sm::UseResource<sm::HostMemory> const use(own);
  sm::StateDict const copy = sm::offloaded(dict);
  CHECK(sm::difference(dict, copy) == "");
  CHECK(sm::host_pool().in_use() == before);  // the engine's allocator stands for all host memory
}

TEST_CASE("a full state comes from the pool, in few blocks, and goes back to it") {
  std::size_t const before = sm::host_pool().in_use();
  sm::launch(sm::threads{2}, [before](sm::ThreadsCommunicator& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::StateDict dict;
    dict.insert("large", sm::distribute(numbers({2048, 1024}), mesh, sm::placements<sm::Shard<0>>));
    dict.insert("small", sm::distribute(numbers({7, 3}), mesh, sm::placements<sm::Shard<1>>));
    sm::StateDict const whole = sm::full_state_dict(world, dict);
    world.barrier("test");
    if (world.rank() == 0) {
      CHECK(sm::host_pool().in_use() == before + 8 * mebi);
      CHECK(whole.at("large").tensor().local_bytes() ==
            sm::AnyTensor(numbers({2048, 1024})).local_bytes());
      CHECK(whole.at("small").tensor().local_bytes() ==
            sm::AnyTensor(numbers({7, 3})).local_bytes());
    }
    world.barrier("test");
  });
  CHECK(sm::host_pool().in_use() == before);
}

TEST_CASE("a tensor of the pool is filled from where it is wanted") {
  auto const tensor = numbers({3, 4});
  sm::HostBuckets buckets;
  auto const copy = sm::detail::pooled_clone<sm::HostMemory>(tensor, {}, &buckets);
  CHECK(std::equal(copy.span().begin(), copy.span().end(), tensor.span().begin()));
  CHECK(sm::detail::pooled_tensor<float>({0, 4}, &buckets).bytes() == 0);
  CHECK(sm::detail::pooled_tensor<float>({2, 4}, nullptr).bytes() == 32);
  auto const away = sm::Tensor<float>::sharded_away();
  CHECK(sm::detail::pooled_clone<sm::HostMemory>(away, {}, nullptr).is_sharded_away());
}

TEST_SUITE_END();

}  // namespace offload_test
