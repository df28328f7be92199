// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The behaviour rows that need no files, on ranks that are threads of this process.
#include <shardmesh/comm/threads.hpp>

#include <doctest/doctest.h>

#include "../support/behaviours.hpp"

namespace sm = shardmesh;

TEST_SUITE_BEGIN("behaviours.threads");

TEST_CASE("B1 mesh: a 2-D mesh knows coordinates, groups and their rank lists") {
  for (int ranks : {4, 6, 8}) {
    sm::launch(sm::threads{ranks}, [](auto& world) { CHECK(test::b1_mesh(world) == ""); });
  }
}

TEST_CASE("B2 HSDP state: every value is a DistTensor (Replicate, Shard(0)) on the mesh given") {
  for (int ranks : {4, 8}) {
    sm::launch(sm::threads{ranks},
               [](auto& world) { CHECK(test::b2_hsdp_state<sm::HostMemory>(world) == ""); });
  }
}

TEST_CASE("B7 1-D FSDP parity: a module's own state is what the visitor gets") {
  for (int ranks : {3, 4, 5}) {
    sm::launch(sm::threads{ranks},
               [](auto& world) { CHECK(test::b7_parity<sm::HostMemory>(world) == ""); });
  }
}

TEST_SUITE_END();
