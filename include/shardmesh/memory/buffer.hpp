// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <utility>

#include <shardmesh/memory/resource.hpp>
#include <shardmesh/memory/space.hpp>

namespace shardmesh {
inline namespace v0 {

/// Owns bytes of a memory space, or of the resource that takes its place (`UseResource`). Allocated and given back in
/// the order of its stream.
template <MemorySpace Space>
class Buffer {
 public:
  using Stream = typename Space::Stream;

  Buffer() = default;

  /// Uninitialised bytes; 0 is legal and allocates nothing.
  explicit Buffer(std::size_t bytes, Stream stream = {})
      : resource_(bytes == 0 ? nullptr : detail::resource_in_use<Space>().load()),
        data_(resource_ == nullptr
                  ? Space::allocate(bytes, stream)
                  : resource_->allocate(bytes, detail::space_alignment<Space>, stream)),
        size_(bytes),
        stream_(stream) {}

  Buffer(Buffer&& other) noexcept
      : resource_(other.resource_),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        stream_(other.stream_) {}

  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    std::swap(resource_, taken.resource_);
    std::swap(data_, taken.data_);
    std::swap(size_, taken.size_);
    std::swap(stream_, taken.stream_);
    return *this;
  }

  Buffer(Buffer const&) = delete;
  Buffer& operator=(Buffer const&) = delete;

  ~Buffer() {
    if (resource_ == nullptr) {
      Space::deallocate(data_, size_, stream_);
    } else if (data_ != nullptr) {
      resource_->deallocate(data_, size_, detail::space_alignment<Space>, stream_);
    }
  }

  [[nodiscard]] void* data() const noexcept { return data_; }
  /// Bytes.
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  MemoryResource<Space>* resource_ = nullptr;  // nullptr: the space itself
  void* data_ = nullptr;
  std::size_t size_ = 0;
  Stream stream_{};
};

}  // namespace v0
}  // namespace shardmesh
