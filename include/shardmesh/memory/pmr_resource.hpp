// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory_resource>

#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/resource.hpp>

namespace shardmesh {
inline namespace v0 {

/// Host memory from a resource of the standard library, which must stand calls of several threads at a time
/// (`std::pmr::synchronized_pool_resource` does).
class PmrResource : public MemoryResource<HostMemory> {
 public:
  /// @param upstream  lives as long as memory of it.
  explicit PmrResource(std::pmr::memory_resource& upstream) noexcept : upstream_(&upstream) {}

  [[nodiscard]] void* allocate(std::size_t bytes, std::size_t alignment, Stream) override {
    return upstream_->allocate(bytes, alignment);
  }
  void deallocate(void* pointer,
                  std::size_t bytes,
                  std::size_t alignment,
                  Stream) noexcept override {
    upstream_->deallocate(pointer, bytes, alignment);
  }

 private:
  std::pmr::memory_resource* upstream_;
};

}  // namespace v0
}  // namespace shardmesh
