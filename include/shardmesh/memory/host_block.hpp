// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <span>
#include <utility>

#include <shardmesh/memory/host_pool.hpp>

namespace shardmesh {
inline namespace v0 {

/// Uninitialised host memory for bytes that pass through or rest: large blocks from the pool of the process, small ones
/// from the heap, which keeps those itself.
///
/// @tparam Pool  as `HostPool`.
template <class Pool>
class BasicHostBlock {
 public:
  /// What `O_DIRECT` wants of addresses. Of smaller blocks: cache lines.
  static constexpr std::size_t alignment = 4096;

  BasicHostBlock() = default;
  /// @param bytes  0 is legal and allocates nothing.
  /// @throws std::bad_alloc
  explicit BasicHostBlock(std::size_t bytes)
      : data_(bytes == 0 ? nullptr : static_cast<std::byte*>(obtain(bytes))), size_(bytes) {}
  BasicHostBlock(BasicHostBlock&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  BasicHostBlock& operator=(BasicHostBlock&& other) noexcept {
    BasicHostBlock taken(std::move(other));
    std::swap(data_, taken.data_);
    std::swap(size_, taken.size_);
    return *this;
  }
  BasicHostBlock(BasicHostBlock const&) = delete;
  BasicHostBlock& operator=(BasicHostBlock const&) = delete;
  ~BasicHostBlock() {
    if (data_ != nullptr) {
      give_back();
    }
  }

  [[nodiscard]] static BasicHostBlock copy_of(std::span<std::byte const> bytes) {
    BasicHostBlock copy(bytes.size());
    std::copy(bytes.begin(), bytes.end(), copy.data());
    return copy;
  }

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::span<std::byte> span() const noexcept { return {data_, size_}; }

 private:
  static constexpr std::size_t least_pooled = std::size_t{1} << 18;

  [[nodiscard]] static std::align_val_t heap_alignment(std::size_t bytes) noexcept {
    return std::align_val_t{bytes < alignment ? std::size_t{64} : alignment};
  }
  [[nodiscard]] static void* obtain(std::size_t bytes) {
    return bytes >= least_pooled ? host_pool<Pool>().allocate(bytes)
                                 : ::operator new(bytes, heap_alignment(bytes));
  }
  void give_back() noexcept {
    if (size_ >= least_pooled) {
      host_pool<Pool>().deallocate(data_);
    } else {
      ::operator delete(data_, size_, heap_alignment(size_));
    }
  }

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// From the pool of the process.
using HostBlock = BasicHostBlock<HostPool>;

}  // namespace v0
}  // namespace shardmesh
