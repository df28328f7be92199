// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The behaviour rows as test cases of whatever engine a program has. Include this in one source of
// the program, after
//
//   namespace engine {
//   using Space = ...;                                              // where tensors lie
//   template <class Body> void on_ranks(Body const& body);          // body(world) on every rank, for
//   template <class Body> void on_even_ranks(Body const& body);     // some (even) numbers of ranks
//   }

#include <string>

#include <doctest/doctest.h>

#include "behaviours.hpp"
#include "training_rows.hpp"

namespace test {

/// A row on every hybrid mesh of the engine.
template <class Row>
void check_on_hybrid_meshes(Row const& row) {
  engine::on_even_ranks([&row](auto const& world) { CHECK(on_hybrid_meshes(world, row) == ""); });
}

}  // namespace test

TEST_SUITE_BEGIN("behaviours");

TEST_CASE("B1 mesh: a 2-D mesh knows coordinates, groups and their rank lists") {
  test::check_on_hybrid_meshes(
      [](auto const& comm, int replicas) { return test::b1_mesh(comm, replicas); });
}

TEST_CASE("B2 HSDP state: every value is a DistTensor (Replicate, Shard(0)) on the mesh given") {
  test::check_on_hybrid_meshes([](auto const& comm, int replicas) {
    return test::b2_hsdp_state<engine::Space>(comm, replicas);
  });
}

TEST_CASE(
    "B3 representation: a pair of communicators gives sharded tensors with the same content") {
  test::check_on_hybrid_meshes([](auto const& comm, int replicas) {
    return test::b3_representation<engine::Space>(comm, replicas);
  });
}

TEST_CASE("B4 optimizer round trip: through a stream in memory, offloaded and not") {
  test::check_on_hybrid_meshes([](auto const& comm, int replicas) {
    return test::b4_optimizer_round_trip<engine::Space>(comm, replicas);
  });
}

TEST_CASE("B5 model round trip: through a stream in memory, offloaded and not") {
  test::check_on_hybrid_meshes([](auto const& comm, int replicas) {
    return test::b5_model_round_trip<engine::Space>(comm, replicas);
  });
}

TEST_CASE("B6 root not sharded: plain members under other names on other ranks stay local") {
  test::check_on_hybrid_meshes([](auto const& comm, int replicas) {
    return test::b6_root_not_sharded<engine::Space>(comm, replicas);
  });
}

TEST_CASE("B7 1-D FSDP parity: a module's own state is what the visitor gets") {
  engine::on_ranks([](auto const& world) { CHECK(test::b7_parity<engine::Space>(world) == ""); });
}

TEST_CASE("B8 full state with offload: rank 0 has the original in host memory, others nothing") {
  engine::on_ranks(
      [](auto const& world) { CHECK(test::b8_full_state<engine::Space>(world) == ""); });
}

TEST_CASE("B9 FSDP1 to FSDP2: flat parameters, saved and loaded per parameter") {
  engine::on_ranks(
      [](auto const& world) { CHECK(test::b9_flat_to_per_parameter<engine::Space>(world) == ""); });
}

TEST_CASE("reshard on load: what is saved on one mesh of a job is loaded on any other") {
  engine::on_even_ranks(
      [](auto const& world) { CHECK(test::reshard_on_load<engine::Space>(world) == ""); });
}

TEST_CASE("twenty steps are PyTorch's, however the model is sharded, and bit-equal between runs") {
  engine::on_ranks([](auto const& world) {
    if (test::batch_rows % world.size() == 0) {
      test::run_training_rows<engine::Space>(
          world, [](std::string const& name, std::string const& problem) {
            INFO(name);
            CHECK(problem == "");
          });
    }
  });
}

TEST_SUITE_END();
