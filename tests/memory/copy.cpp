// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/copy.hpp>

#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <shardmesh/memory/host.hpp>

namespace copy_test {

namespace sm = shardmesh;

namespace {

/// Spaces of other kinds, as far as the choice of an engine looks at them.
struct Pinned : sm::HostMemory {
  static constexpr sm::MemoryKind kind = sm::MemoryKind::pinned;
};
struct Device : sm::HostMemory {
  static constexpr sm::MemoryKind kind = sm::MemoryKind::cuda;
};

static_assert(std::is_same_v<sm::CopySpace<sm::HostMemory, sm::HostMemory>, sm::HostMemory>);
static_assert(std::is_same_v<sm::CopySpace<Pinned, sm::HostMemory>, Pinned>);
static_assert(std::is_same_v<sm::CopySpace<Device, Pinned>, Device>);
static_assert(std::is_same_v<sm::CopySpace<sm::HostMemory, Device>, Device>);
static_assert(std::is_same_v<sm::CopySpace<Device, Device>, Device>);

}  // namespace

TEST_SUITE_BEGIN("memory.copy");

TEST_CASE("bytes are copied from one space to another") {
  std::vector<int> const from{1, 2, 3};
  std::vector<int> to(3);
  sm::copy_bytes<sm::HostMemory, Pinned>(to.data(), from.data(), 12);
  CHECK(to == from);
  sm::copy_bytes<Device, sm::HostMemory>(nullptr, nullptr, 0);
}

TEST_CASE("boxes are copied from one space to another") {
  std::vector<int> const from{1, 2, 3, 4};
  std::vector<int> to(2);
  sm::copy_box<sm::HostMemory, sm::HostMemory>({from.data(), to.data(), {2}, {8}, {4}, 4});
  CHECK(to == std::vector<int>{1, 3});
}

TEST_SUITE_END();

}  // namespace copy_test
