// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>

#include <doctest/doctest.h>

#include "../support/offload_cases.hpp"

namespace sm = shardmesh;

TEST_SUITE_BEGIN("gpu.offload");

TEST_CASE("B10 offload equivalence: 1,600 random tensors in device memory on 1 to 8 ranks") {
  for (int const ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
    sm::launch(sm::threads_on_devices{ranks}, [ranks](sm::ThreadsCommunicator& world) {
      auto const seed = static_cast<unsigned>(100 * ranks);
      CHECK(test::b10_offload_equivalence<sm::CudaMemory>(world, seed, 200) == "");
    });
  }
}

TEST_SUITE_END();
