// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <string>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>

#include "../support/fake_device.hpp"
#include "../support/offload_cases.hpp"

namespace sm = shardmesh;

TEST_SUITE_BEGIN("state.offload");

TEST_CASE("B10 offload equivalence: 6,000 random tensors on 1 to 8 ranks") {
  for (int const ranks : {1, 2, 3, 4, 6, 8}) {
    sm::launch(sm::threads{ranks}, [ranks](sm::ThreadsCommunicator& world) {
      auto const seed = static_cast<unsigned>(100 * ranks);
      CHECK(test::b10_offload_equivalence<test::FakeDevice>(world, seed, 1000) == "");
    });
  }
}

TEST_SUITE_END();
