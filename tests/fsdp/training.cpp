// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include "../support/training_rows.hpp"

#include <shardmesh/comm/threads.hpp>

#include <doctest/doctest.h>

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;

TEST_SUITE_BEGIN("fsdp.training");

TEST_CASE("twenty steps are PyTorch's, however the model is sharded, and bit-equal between runs") {
  for (int ranks : {1, 2, 3, 4, 6}) {
    sm::launch(sm::threads{ranks}, [](World& world) {
      test::run_training_rows<sm::HostMemory>(
          world, [](std::string const& name, std::string const& problem) {
            INFO(name);
            CHECK(problem == "");
          });
    });
  }
}

TEST_SUITE_END();
