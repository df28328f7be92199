// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The Dense model in device memory against the loops on the host and against PyTorch.
#include <cmath>
#include <string>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/optim/adam.hpp>

#include "../../examples/support/dense_kernels.hpp"
#include "../../examples/support/dense_math_cuda.hpp"
#include "../support/dense_training.hpp"
#include "../support/training_rows.hpp"

namespace sm = shardmesh;

using Device = models::DeviceTensor;

TEST_SUITE_BEGIN("gpu.dense_math");

TEST_CASE("loss and gradients on the device equal those of the host to 1e-5") {
  auto const host_model = test::golden_dense<sm::HostMemory>();
  auto const device_model = test::golden_dense<sm::CudaMemory>();
  models::DenseMath<sm::CudaMemory> math;
  for (int ranks : {1, 2, 3, 4, 12}) {
    auto const batch = test::batch(0, ranks - 1, ranks);
    auto const host = models::dense_loss(host_model, batch.x, batch.target, batch.rows);
    auto const device = math.loss(device_model, batch.x, batch.target, batch.rows);
    CHECK(std::abs(device.loss / host.loss - 1) < 1e-5F);
    REQUIRE(device.gradients.size() == host.gradients.size());
    for (std::size_t i = 0; i < host.gradients.size(); ++i) {
      CHECK(device.gradients[i].shape() == host.gradients[i].shape());
      CHECK(test::relative_difference(sm::to_host(device.gradients[i]), host.gradients[i]) < 1e-5);
    }
  }
}

TEST_CASE("20 steps of Dense on a device give the losses and weights of PyTorch to 1e-5") {
  auto const golden = test::golden_training();
  auto model = test::golden_dense<sm::CudaMemory>();
  sm::Adam<Device> adam(model, golden.options);
  models::DenseMath<sm::CudaMemory> math;
  for (int step = 0; step < 20; ++step) {
    auto const batch = test::batch(step, 0, 1);
    auto const result = math.loss(model, batch.x, batch.target, batch.rows);
    adam.step(result.gradients);
    double const wanted = golden.losses[static_cast<std::size_t>(step)];
    CHECK(std::abs(static_cast<double>(result.loss) / wanted - 1) < 1e-5);
  }
  for (auto const& parameter : adam.parameters()) {
    CHECK(test::relative_difference(sm::to_host(parameter.value),
                                    golden.weights.at(parameter.name)) < 1e-5);
  }
}

TEST_CASE("twenty steps are PyTorch's, however the model is sharded over devices") {
  for (int ranks : {1, 2, 3, 4, 6}) {
    sm::launch(sm::threads_on_devices{ranks}, [](sm::ThreadsCommunicator& world) {
      test::run_training_rows<sm::CudaMemory>(
          world, [](std::string const& name, std::string const& problem) {
            INFO(name);
            CHECK(problem == "");
          });
    });
  }
}

TEST_SUITE_END();
