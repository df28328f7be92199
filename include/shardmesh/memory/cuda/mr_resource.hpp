// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <utility>

#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/memory/resource.hpp>

namespace shardmesh {
inline namespace v0 {

/// Device memory from a `cuda::mr` resource of CCCL (RMM's resources are such), in the order of streams.
/// @tparam Upstream  `cuda::mr::async_resource_ref<cuda::mr::device_accessible>` or any class with its
///                   `allocate_async(bytes, alignment, stream)` (CCCL 3.0) or `allocate(stream, bytes, alignment)`
///                   (CCCL 3.1 and later).
template <class Upstream>
class CudaMrResource : public MemoryResource<CudaMemory> {
 public:
  /// @param upstream  a handle is copied; what it stands for lives as long as memory of it.
  explicit CudaMrResource(Upstream upstream) : upstream_(std::move(upstream)) {}

  [[nodiscard]] void* allocate(std::size_t bytes, std::size_t alignment, Stream stream) override {
    cudaStream_t const order = stream.handle;  // becomes a cuda::stream_ref
    if constexpr (requires { upstream_.allocate_async(bytes, alignment, order); }) {
      return upstream_.allocate_async(bytes, alignment, order);
    } else {
      return upstream_.allocate(order, bytes, alignment);
    }
  }
  void deallocate(void* pointer,
                  std::size_t bytes,
                  std::size_t alignment,
                  Stream stream) noexcept override {
    cudaStream_t const order = stream.handle;
    if constexpr (requires { upstream_.deallocate_async(pointer, bytes, alignment, order); }) {
      upstream_.deallocate_async(pointer, bytes, alignment, order);
    } else {
      upstream_.deallocate(order, pointer, bytes, alignment);
    }
  }

 private:
  Upstream upstream_;
};

}  // namespace v0
}  // namespace shardmesh
