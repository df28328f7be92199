// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/redistribute.hpp>

#include <atomic>

#include <doctest/doctest.h>

#include "../support/redistribute_cases.hpp"

namespace sm = shardmesh;

TEST_SUITE_BEGIN("tensor.redistribute");

TEST_CASE("redistribute: every legal pair of placements on meshes up to 3-D and 8 ranks") {
  std::atomic<long> cases{0};
  for (int ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
    sm::launch(sm::threads{ranks}, [&](sm::ThreadsCommunicator& world) {
      auto const report = test::run_matrix<sm::HostMemory>(world, 11, 1);
      INFO(report.first_wrong);
      CHECK(report.wrong == 0);
      if (world.rank() == 0) {
        cases += report.cases;
      }
    });
  }
  MESSAGE(cases.load() << " cases");
  CHECK(cases.load() >= 20000);
}

TEST_SUITE_END();
