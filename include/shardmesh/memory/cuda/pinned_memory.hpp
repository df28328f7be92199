// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/host.hpp>

namespace shardmesh::inline v0 {

/// Page-locked host memory, which devices copy from and to at the full speed of their link. The
/// host uses it like ordinary memory.
struct PinnedMemory : HostMemory {
  static constexpr MemoryKind kind = MemoryKind::pinned;

  /// @returns nullptr for 0 bytes.
  /// @throws DeviceError
  [[nodiscard]] static void* allocate(std::size_t bytes, Stream = {}) {
    void* pointer = nullptr;
    if (bytes > 0) {
      cuda::check(cudaHostAlloc(&pointer, bytes, cudaHostAllocPortable), "cudaHostAlloc");
    }
    return pointer;
  }
  static void deallocate(void* pointer, std::size_t, Stream = {}) noexcept {
    if (pointer != nullptr) {
      static_cast<void>(cudaFreeHost(pointer));
    }
  }
};

static_assert(MemorySpace<PinnedMemory>);

}  // namespace shardmesh::inline v0
