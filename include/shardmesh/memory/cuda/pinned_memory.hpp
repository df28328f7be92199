// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/memory/block_pool.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/host_pool.hpp>

namespace shardmesh {
inline namespace v0 {

namespace cuda {

/// Lets the pool of host memory lock its pages for all devices, once each: copies from and to it run at the full speed of
/// the link, without the driver's own copy.
inline void pin_host_pool() {
  static bool const once = [] {
    host_pool().use(
        {[](void* pages, std::size_t bytes) noexcept {
           bool const locked =
               cudaHostRegister(pages, bytes, cudaHostRegisterPortable) == cudaSuccess;
           if (!locked) {
             static_cast<void>(cudaGetLastError());  // told by whoever needs it
           }
           return locked;
         },
         [](void* pages, std::size_t) noexcept { static_cast<void>(cudaHostUnregister(pages)); }});
    return true;
  }();
  static_cast<void>(once);
}

/// Blocks of the pool of host memory that are locked.
struct PinnedPages {
  /// @throws DeviceError, std::bad_alloc
  [[nodiscard]] static void* obtain(std::size_t bytes) {
    pin_host_pool();
    void* const block = host_pool().allocate(bytes);
    if (!host_pool().is_prepared(block)) {
      host_pool().deallocate(block);
      throw_unlocked(bytes);
    }
    return block;
  }
  static void give_back(void* pointer, std::size_t) noexcept { host_pool().deallocate(pointer); }

 private:
  /// Tries once more, to learn why.
  [[noreturn]] static void throw_unlocked(std::size_t bytes) {
    void* pages = nullptr;
    check(cudaMallocHost(&pages, bytes), "cudaHostRegister");
    static_cast<void>(cudaFreeHost(pages));
    throw DeviceError(static_cast<int>(cudaErrorMemoryAllocation),
                      "shardmesh: pages of host memory could not be locked for devices; is there a "
                      "limit of locked memory (ulimit -l)?");
  }
};

/// Page-locked memory in small pieces, kept until the process ends (decision 0007).
[[nodiscard]] SHARDMESH_EXPORT inline BlockPool<PinnedPages>& pinned_pool() {
  // Never destroyed: tensors may outlive every static, and CUDA itself ends with the process.
  static auto* const pool = new BlockPool<PinnedPages>;
  return *pool;
}

}  // namespace cuda

/// Page-locked host memory, which devices copy from and to at the full speed of their link. The
/// host uses it like ordinary memory. It comes from the pool of host memory, which keeps what is given back
/// within a bound, because locking pages costs far more than copying them.
///
/// What is given back may be used again at once: copies of a device from or to it must be done by
/// then.
struct PinnedMemory : HostMemory {
  static constexpr MemoryKind kind = MemoryKind::pinned;

  /// @returns nullptr for 0 bytes.
  /// @throws DeviceError, std::bad_alloc
  [[nodiscard]] static void* allocate(std::size_t bytes, Stream = {}) {
    return is_small(bytes) ? cuda::pinned_pool().allocate(bytes) : cuda::PinnedPages::obtain(bytes);
  }
  static void deallocate(void* pointer, std::size_t bytes, Stream = {}) noexcept {
    if (pointer != nullptr && is_small(bytes)) {
      cuda::pinned_pool().deallocate(pointer, bytes);
    } else if (pointer != nullptr) {
      cuda::PinnedPages::give_back(pointer, bytes);
    }
  }

  /// Makes the pool ready for one tensor of `bytes`, ahead of the time when somebody waits for it.
  /// @throws DeviceError, std::bad_alloc
  static void reserve(std::size_t bytes) { deallocate(allocate(bytes), bytes); }

 private:
  [[nodiscard]] static constexpr bool is_small(std::size_t bytes) noexcept {
    return bytes < BlockPool<cuda::PinnedPages>::arena_bytes / 32;
  }
};

static_assert(MemorySpace<PinnedMemory>);

}  // namespace v0
}  // namespace shardmesh
