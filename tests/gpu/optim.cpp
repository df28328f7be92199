// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Optimizers in device memory, against those on the host, bit by bit.
#include <cstddef>
#include <random>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/optim/optimizer.hpp>
#include <shardmesh/optim/sgd.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/optimizers.hpp"

namespace sm = shardmesh;

using sm::CudaMemory;
using Host = sm::Tensor<float>;
using Device = sm::Tensor<float, CudaMemory>;
using World = sm::ThreadsCommunicator;

namespace {

Device on_device(Host const& tensor) {
  return Device::from(tensor.shape(), tensor.span());
}

/// Elements of parameters and state that differ in any bit between two optimizers.
template <class A, class B>
int differing(A const& a, B const& b) {
  sm::StateDict const left = a.state_dict();
  sm::StateDict const right = b.state_dict();
  REQUIRE(left.size() == right.size());
  int count = 0;
  for (sm::StateEntry const& entry : left) {
    if (entry.is_tensor()) {
      REQUIRE(entry.tensor().bytes() == right.at(entry.key).tensor().bytes());
      count += entry.tensor().local_bytes() == right.at(entry.key).tensor().local_bytes() ? 0 : 1;
    }
  }
  for (std::size_t i = 0; i < a.parameters().size(); ++i) {
    auto const x = sm::AnyTensor(a.parameters()[i].value).local_bytes();
    auto const y = sm::AnyTensor(b.parameters()[i].value).local_bytes();
    count += x == y ? 0 : 1;
  }
  return count;
}

Host random_tensor(sm::index_t count, unsigned seed) {
  std::mt19937 random(seed);
  Host tensor(sm::Shape{count});
  for (float& value : tensor.span()) {
    value = static_cast<float>(random()) / 2147483648.0F - 1.0F;
  }
  return tensor;
}

/// Three steps on more elements than a device has threads; `stream` orders those on the device.
template <class Options>
int differing_after_steps(Options const& options, sm::CudaStream stream) {
  constexpr sm::index_t count = 1'500'001;
  Host const start = random_tensor(count, 1);
  sm::Optimizer<Device, Options> device({{"w", on_device(start)}}, options);
  sm::Optimizer<Host, Options> host({{"w", start}}, options);
  sm::CudaStream{}.synchronize();  // what the constructors did
  for (unsigned step = 0; step < 3; ++step) {
    Host const gradient = random_tensor(count, 10 + step);
    device.step({on_device(gradient)}, stream);
    host.step({gradient});
    stream.synchronize();
  }
  return differing(device, host);
}

}  // namespace

TEST_SUITE_BEGIN("gpu.optim");

TEST_CASE("20 steps in device memory have the bits of the host, and equal PyTorch's to 1e-6") {
  auto const data = test::optimizer_data();
  for (auto const& one : data.at("cases")) {
    INFO(one.at("optimizer"), " ", one.at("groups").dump());
    test::with_options_of(one.at("optimizer"), [&]<class O>(O) {
      auto const host = test::trained<O>(data, one, [](Host const& tensor) { return tensor; });
      CHECK(differing(test::trained<O>(data, one, on_device), host) == 0);
      CHECK(test::deviation_from_torch<O>(data, one, on_device).worst < 1e-6);
    });
  }
}

TEST_CASE("20 steps on shards in device memory, some of them empty") {
  auto const data = test::optimizer_data();
  sm::launch(sm::threads_on_devices{3}, [&data](World& world) {
    auto const mesh = sm::device_mesh(world, {3});
    auto const place = [&mesh](Host const& tensor) {
      return sm::distribute(on_device(tensor), mesh, sm::placements<sm::Shard<0>>);
    };
    for (auto const& one : data.at("cases")) {
      test::with_options_of(one.at("optimizer"), [&]<class O>(O) {
        CHECK(test::deviation_from_torch<O>(data, one, place).worst < 1e-6);
      });
    }
  });
}

TEST_CASE("steps on a stream of their own, on many elements, have the bits of the host") {
  auto const own = CudaMemory::make_stream();
  for (sm::CudaStream const stream : {sm::CudaStream{}, own.get()}) {
    CHECK(differing_after_steps(sm::AdamOptions{.weight_decay = 0.1}, stream) == 0);
    CHECK(differing_after_steps(sm::AdamWOptions{.betas = {0.3, 0.9}, .amsgrad = true}, stream) ==
          0);
    CHECK(differing_after_steps(
              sm::SgdOptions{.momentum = 0.9, .dampening = 0.1, .weight_decay = 0.1}, stream) == 0);
    CHECK(differing_after_steps(sm::SgdOptions{.momentum = 0.9, .nesterov = true, .maximize = true},
                                stream) == 0);
  }
}

TEST_SUITE_END();
