// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Ranks that are threads, tensors in device memory; any number of ranks shares a GPU.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/memory/cuda/pinned_memory.hpp>

#include "../support/transfer_cases.hpp"
#include "counted.hpp"

namespace engine {

namespace sm = shardmesh;

using Space = sm::CudaMemory;

template <class Body>
void on_ranks(Body const& body) {
  for (int ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
    sm::launch(sm::threads_on_devices{ranks},
               [&body](sm::ThreadsCommunicator& world) { body(world); });
  }
}

template <class Body>
void on_even_ranks(Body const& body) {
  for (int ranks : {2, 4, 6, 8}) {
    sm::launch(sm::threads_on_devices{ranks},
               [&body](sm::ThreadsCommunicator& world) { body(world); });
  }
}

}  // namespace engine

#include "../../examples/support/dense_math_cuda.hpp"
#include "../support/behaviour_cases.hpp"

namespace sm = shardmesh;

using sm::CudaMemory;
using World = sm::ThreadsCommunicator;

int main(int argc, char** argv) {
  if (sm::cuda::device_count() == 0) {
    std::puts("SKIP: no usable GPU on this machine");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}

TEST_SUITE_BEGIN("gpu.threads_on_devices");

TEST_CASE("redistribution waits for no device and reaches a state that allocates nothing") {
  for (int ranks : {1, 3, 4}) {
    sm::launch(sm::threads_on_devices{ranks},
               [](World& world) { CHECK(test::no_hidden_waits(world) == ""); });
  }
}

TEST_CASE("transfers between meshes in device memory") {
  long cases = 0;
  for (int ranks : {2, 3, 4, 6, 8}) {
    sm::launch(sm::threads_on_devices{ranks}, [&](World& world) {
      auto const report = test::run_transfers<CudaMemory>(world, 40U, 8, 120);
      INFO(report.first_wrong);
      CHECK(report.wrong == 0);
      if (world.rank() == 0) {
        cases += report.cases;
      }
    });
  }
  CHECK(cases >= 500);
}

TEST_CASE("redistribute matrix in device memory") {
  for (int ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
    sm::launch(sm::threads_on_devices{ranks}, [ranks](World& world) {
      auto const report = test::run_matrix<CudaMemory>(world, 21, ranks > 4 ? 23 : 7);
      INFO(report.first_wrong);
      CHECK(report.wrong == 0);
      if (world.rank() == 0) {
        MESSAGE(std::to_string(ranks) << " ranks: " << report.cases << " cases");
      }
    });
  }
}

TEST_CASE("copies between host, pinned and device memory keep every element") {
  sm::launch(sm::threads_on_devices{2}, [](World&) {
    sm::Tensor<float> host(sm::Shape{5, 7});
    for (std::size_t i = 0; i < 35; ++i) {
      host.span()[i] = static_cast<float>(i);
    }
    auto const device = host.clone<CudaMemory>();
    auto const pinned = device.clone<sm::PinnedMemory>();
    sm::CudaStream{}.synchronize();
    CHECK(std::equal(host.span().begin(), host.span().end(), pinned.span().begin()));
    auto const again = pinned.clone<CudaMemory>().clone<sm::HostMemory>();
    sm::CudaStream{}.synchronize();
    CHECK(std::equal(host.span().begin(), host.span().end(), again.span().begin()));
  });
}

TEST_SUITE_END();
