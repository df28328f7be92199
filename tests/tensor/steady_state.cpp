// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What an exchange that has been made before asks of the allocator: nothing but its result. A program of its own,
// since it replaces operator new.
#include <cstddef>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/redistribute.hpp>

#include "../support/counted_memory.hpp"

namespace steady_state_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("tensor.steady_state");

namespace {

/// Calls of the allocator that all ranks make in `times` runs of `part`, after some that are not counted.
template <class World, class F>
std::size_t steady_calls(World const& world, int times, F&& part) {
  for (int i = 0; i < 3; ++i) {
    part();
  }
  world.barrier();
  std::size_t const before = test::CountedMemory::calls();
  world.barrier();
  for (int i = 0; i < times; ++i) {
    part();
  }
  world.barrier();
  std::size_t const made = test::CountedMemory::calls() - before;
  world.barrier();
  return made;
}

template <class Mesh, class P>
auto numbers(Mesh const& mesh, P const& placements) {
  sm::Tensor<float> whole(sm::Shape{8, 12});
  float next = 0;
  for (float& one : whole.span()) {
    one = next++;
  }
  return sm::distribute(whole, mesh, placements, sm::DataSource::own);
}

}  // namespace

TEST_CASE("a redistribution that was made before allocates its result and nothing else") {
  sm::launch(sm::threads{4}, [](auto const& world) {
    auto const mesh = sm::device_mesh<2>(world, {2, 2});
    auto const x = numbers(mesh, sm::placements<sm::Shard<0>, sm::Shard<1>>);
    auto const y = sm::redistribute(x, sm::placements<sm::Shard<1>, sm::Shard<0>>);
    CHECK(steady_calls(world, 10, [&] { sm::redistribute_into(x, y); }) == 0);
    // The elements and the handle that counts their owners, on each of four ranks.
    CHECK(steady_calls(world, 10, [&] {
            static_cast<void>(sm::redistribute(x, sm::placements<sm::Shard<1>, sm::Shard<0>>));
          }) == 10 * 4 * 2);
    CHECK(steady_calls(world, 10, [&] { world.barrier(); }) == 0);
    auto const again = sm::redistribute(y, sm::placements<sm::Shard<0>, sm::Shard<1>>);
    CHECK(std::vector<float>(again.to_local().span().begin(), again.to_local().span().end()) ==
          std::vector<float>(x.to_local().span().begin(), x.to_local().span().end()));
  });
}

TEST_SUITE_END();

}  // namespace steady_state_test
