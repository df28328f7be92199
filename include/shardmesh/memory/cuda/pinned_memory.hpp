// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

#include <shardmesh/core/config.hpp>
#include <shardmesh/memory/block_pool.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/huge_pages.hpp>

namespace shardmesh {
inline namespace v0 {

namespace cuda {

/// Huge pages, locked for all devices.
struct PinnedPages {
  /// @throws DeviceError, std::bad_alloc
  [[nodiscard]] static void* obtain(std::size_t bytes) {
    void* const pointer = HugePages::obtain(bytes);
    try {
      check(cudaHostRegister(pointer, HugePages::mapped(bytes), cudaHostRegisterPortable),
            "cudaHostRegister");
    } catch (...) {
      HugePages::give_back(pointer, bytes);
      throw;
    }
    return pointer;
  }
  static void give_back(void* pointer, std::size_t bytes) noexcept {
    cudaHostUnregister(pointer);
    HugePages::give_back(pointer, bytes);
  }
};

/// The page-locked memory of the process, kept until it ends (decision 0007).
[[nodiscard]] SHARDMESH_EXPORT inline BlockPool<PinnedPages>& pinned_pool() {
  // Never destroyed: tensors may outlive every static, and CUDA itself ends with the process.
  static auto* const pool = new BlockPool<PinnedPages>;
  return *pool;
}

}  // namespace cuda

/// Page-locked host memory, which devices copy from and to at the full speed of their link. The
/// host uses it like ordinary memory. It comes from a pool that keeps what is given back, because
/// locking pages costs far more than copying them.
///
/// What is given back may be used again at once: copies of a device from or to it must be done by
/// then.
struct PinnedMemory : HostMemory {
  static constexpr MemoryKind kind = MemoryKind::pinned;

  /// @returns nullptr for 0 bytes.
  /// @throws DeviceError, std::bad_alloc
  [[nodiscard]] static void* allocate(std::size_t bytes, Stream = {}) {
    return bytes == 0 ? nullptr : cuda::pinned_pool().allocate(bytes);
  }
  static void deallocate(void* pointer, std::size_t bytes, Stream = {}) noexcept {
    if (pointer != nullptr) {
      cuda::pinned_pool().deallocate(pointer, bytes);
    }
  }

  /// Makes the pool ready for one tensor of `bytes`, ahead of the time when somebody waits for it.
  /// @throws DeviceError, std::bad_alloc
  static void reserve(std::size_t bytes) { deallocate(allocate(bytes), bytes); }
};

static_assert(MemorySpace<PinnedMemory>);

}  // namespace v0
}  // namespace shardmesh
