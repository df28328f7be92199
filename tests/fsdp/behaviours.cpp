// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The behaviour rows on ranks that are threads of this process, tensors in host memory.
#include "../support/behaviours.hpp"

#include <shardmesh/comm/threads.hpp>

#include <doctest/doctest.h>

namespace sm = shardmesh;

using sm::HostMemory;
using World = sm::ThreadsCommunicator;

TEST_SUITE_BEGIN("behaviours.threads");

TEST_CASE("B1 mesh: a 2-D mesh knows coordinates, groups and their rank lists") {
  for (int ranks : {4, 6, 8}) {
    sm::launch(sm::threads{ranks}, [](World& world) { CHECK(test::b1_mesh(world) == ""); });
  }
}

TEST_CASE("B2 HSDP state: every value is a DistTensor (Replicate, Shard(0)) on the mesh given") {
  for (int ranks : {4, 6, 8}) {
    sm::launch(sm::threads{ranks},
               [](World& world) { CHECK(test::b2_hsdp_state<HostMemory>(world) == ""); });
  }
}

TEST_CASE(
    "B3 representation: a pair of communicators gives sharded tensors with the same content") {
  for (int ranks : {4, 6, 8}) {
    sm::launch(sm::threads{ranks},
               [](World& world) { CHECK(test::b3_representation<HostMemory>(world) == ""); });
  }
}

TEST_CASE("B4 optimizer round trip: through a stream in memory, offloaded and not") {
  for (int ranks : {4, 6}) {
    sm::launch(sm::threads{ranks},
               [](World& world) { CHECK(test::b4_optimizer_round_trip<HostMemory>(world) == ""); });
  }
}

TEST_CASE("B5 model round trip: through a stream in memory, offloaded and not") {
  for (int ranks : {4, 6}) {
    sm::launch(sm::threads{ranks},
               [](World& world) { CHECK(test::b5_model_round_trip<HostMemory>(world) == ""); });
  }
}

TEST_CASE("B6 root not sharded: plain members under other names on other ranks stay local") {
  for (int ranks : {4, 6}) {
    sm::launch(sm::threads{ranks},
               [](World& world) { CHECK(test::b6_root_not_sharded<HostMemory>(world) == ""); });
  }
}

TEST_CASE("B7 1-D FSDP parity: a module's own state is what the visitor gets") {
  for (int ranks : {3, 4, 5, 7}) {
    sm::launch(sm::threads{ranks},
               [](World& world) { CHECK(test::b7_parity<HostMemory>(world) == ""); });
  }
}

TEST_CASE("B8 full state with offload: rank 0 has the original in host memory, others nothing") {
  for (int ranks : {3, 4, 6}) {
    sm::launch(sm::threads{ranks},
               [](World& world) { CHECK(test::b8_full_state<HostMemory>(world) == ""); });
  }
}

TEST_CASE("B9 FSDP1 to FSDP2: flat parameters, saved and loaded per parameter") {
  for (int ranks : {3, 4}) {
    sm::launch(sm::threads{ranks}, [](World& world) {
      CHECK(test::b9_flat_to_per_parameter<HostMemory>(world) == "");
    });
  }
}

TEST_SUITE_END();
