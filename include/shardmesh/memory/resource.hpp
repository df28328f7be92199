// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

#include <shardmesh/memory/space.hpp>

namespace shardmesh {
inline namespace v0 {

/// Where the bytes of a memory space come from, if not from the space itself: the allocator of the engine that
/// shardmesh is built into. Called by all ranks that are threads of the process, at the same time.
template <MemorySpace Space>
class MemoryResource {
 public:
  using Stream = typename Space::Stream;

  MemoryResource() = default;
  MemoryResource(MemoryResource const&) = delete;
  MemoryResource& operator=(MemoryResource const&) = delete;
  virtual ~MemoryResource() = default;

  /// @param bytes   more than 0.
  /// @param stream  on which the memory is used first; of the device that is current on the calling thread.
  /// @returns never nullptr.
  /// @throws whatever it likes; the operation that wanted the memory fails with it.
  [[nodiscard]] virtual void* allocate(std::size_t bytes, std::size_t alignment, Stream stream) = 0;
  /// @param stream  behind whose work the memory is free.
  virtual void deallocate(void* pointer,
                          std::size_t bytes,
                          std::size_t alignment,
                          Stream stream) noexcept = 0;
};

namespace detail {

template <MemorySpace Space>
[[nodiscard]] std::atomic<MemoryResource<Space>*>& resource_in_use() noexcept {
  static std::atomic<MemoryResource<Space>*> resource = nullptr;
  return resource;
}

/// What memory of a space is aligned to: what CUDA gives, or cache lines.
template <MemorySpace Space>
inline constexpr std::size_t space_alignment = Space::kind == MemoryKind::cuda ? 256 : 64;

}  // namespace detail

/// While it lives, all memory of a space that tensors, exchanges and snapshots of the process take comes from a resource.
/// What was taken before goes back to where it came from, and so does what is still there afterwards: the resource
/// outlives it.
///
/// ```
/// MyAllocator allocator;  // : public sm::MemoryResource<sm::CudaMemory>
/// sm::UseResource<sm::CudaMemory> const use(allocator);
/// ```
///
/// Make it before ranks that are threads start: it is for the whole process. They can be nested.
template <MemorySpace Space>
class UseResource {
 public:
  explicit UseResource(MemoryResource<Space>& resource) noexcept
      : before_(detail::resource_in_use<Space>().exchange(&resource)) {}
  UseResource(UseResource const&) = delete;
  UseResource& operator=(UseResource const&) = delete;
  ~UseResource() { detail::resource_in_use<Space>() = before_; }

 private:
  MemoryResource<Space>* before_;
};

}  // namespace v0
}  // namespace shardmesh
