// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What a machine without a GPU can check of the paths for devices: a memory space that says it is a
// device's and counts what it gives out, and ranks that do not see each other's memory.

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <shardmesh/comm/threads.hpp>
#include <shardmesh/memory/host.hpp>

namespace test {

/// Host memory that passes for a device's. Counts the bytes that the calling rank has in use.
struct FakeDevice : shardmesh::HostMemory {
  static constexpr shardmesh::MemoryKind kind = shardmesh::MemoryKind::cuda;
  static constexpr bool host_accessible = false;

  struct Use {
    std::size_t live = 0;
    std::size_t peak = 0;
  };
  static Use& use() {
    thread_local Use counts;
    return counts;
  }

  static void* allocate(std::size_t bytes, Stream stream = {}) {
    use().live += bytes;
    use().peak = std::max(use().peak, use().live);
    return HostMemory::allocate(bytes, stream);
  }
  static void deallocate(void* pointer, std::size_t bytes, Stream stream = {}) noexcept {
    use().live -= bytes;
    HostMemory::deallocate(pointer, bytes, stream);
  }
};

static_assert(shardmesh::MemorySpace<FakeDevice>);

/// Ranks that are threads, but exchange messages as processes do. Counts the largest exchange.
class PackedThreads {
 public:
  static constexpr bool shared_address_space = false;
  template <class Space>
  static constexpr bool moves = true;

  PackedThreads() = default;
  explicit PackedThreads(shardmesh::ThreadsCommunicator inner) : inner_(std::move(inner)) {}

  explicit operator bool() const noexcept { return static_cast<bool>(inner_); }
  [[nodiscard]] int rank() const noexcept { return inner_.rank(); }
  [[nodiscard]] int size() const noexcept { return inner_.size(); }
  [[nodiscard]] std::vector<int> world_ranks() const { return inner_.world_ranks(); }
  void barrier(shardmesh::Call const& call = "barrier") const { inner_.barrier(call); }
  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine, shardmesh::Call const& call = "all_gather") const {
    return inner_.all_gather(mine, call);
  }
  [[nodiscard]] PackedThreads split(int color,
                                    int key,
                                    shardmesh::Call const& call = "split") const {
    return PackedThreads(inner_.split(color, key, call));
  }
  template <class Space>
  void exchange(std::span<shardmesh::Message const> sends,
                std::span<shardmesh::Message> receives,
                typename Space::Stream stream = {},
                shardmesh::Call const& call = "exchange") const {
    inner_.template exchange<Space>(sends, receives, stream, call);
  }

 private:
  shardmesh::ThreadsCommunicator inner_;
};

static_assert(shardmesh::Communicator<PackedThreads>);

}  // namespace test
