// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The ranges that a profiler sees; the header of NVTX is one that keeps them. In the program that counts calls of
// the allocator: with ranges it makes no more of them.
#include <shardmesh/core/range.hpp>

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/redistribute.hpp>

namespace ranges_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("tensor.ranges");

TEST_CASE("ranges: each exchange of each rank has the name that the user called") {
  nvtx_test::pushed = 0;
  nvtx_test::popped = 0;
  sm::launch(sm::threads{4}, [](auto const& world) {
    auto const mesh = sm::device_mesh<2>(world, {2, 2});
    auto const x = sm::distribute(sm::Tensor<float>::zeros({8, 6}), mesh,
                                  sm::placements<sm::Shard<0>, sm::Shard<1>>);
    static_cast<void>(sm::redistribute(x, sm::placements<sm::Shard<1>, sm::Shard<0>>));
    static_cast<void>(sm::redistribute(x, sm::placements<sm::Replicate, sm::Replicate>));
  });
  std::map<std::string, int> found;
  for (std::size_t i = 0; i < nvtx_test::pushed; ++i) {
    ++found[nvtx_test::names[i]];
  }
  CHECK(found == std::map<std::string, int>{{"distribute", 4}, {"redistribute", 8}});
  CHECK(nvtx_test::popped == nvtx_test::pushed);
  CHECK(std::string_view(nvtx_test::domain.name) == "shardmesh");
}

TEST_SUITE_END();

}  // namespace ranges_test
