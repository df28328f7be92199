// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <shardmesh/memory/huge_pages.hpp>

namespace shardmesh {
inline namespace v0 {

/// Host memory for bytes that pass through: uninitialised, in huge pages where there are some. Nothing is
/// touched before it is written, so that whoever fills it first pays for its pages, and only once.
class HostPages {
 public:
  HostPages() = default;
  /// @param bytes  0 is legal and maps nothing. Aligned to 2 MiB.
  /// @throws std::bad_alloc
  explicit HostPages(std::size_t bytes)
      : data_(bytes == 0 ? nullptr : static_cast<std::byte*>(HugePages::map(bytes))),
        size_(bytes) {}
  HostPages(HostPages&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  HostPages& operator=(HostPages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  HostPages(HostPages const&) = delete;
  HostPages& operator=(HostPages const&) = delete;
  ~HostPages() {
    if (data_ != nullptr) {
      HugePages::give_back(data_, size_);
    }
  }

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<std::byte> span() const noexcept { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Blocks of such memory that are all given back at once, with the arena. Small ones share pages.
class HostArena {
 public:
  static constexpr std::size_t alignment = 64;

  /// Uninitialised bytes, aligned to 64; they last as long as the arena.
  /// @throws std::bad_alloc
  [[nodiscard]] std::span<std::byte> take(std::size_t bytes) {
    std::size_t const size = (bytes + alignment - 1) / alignment * alignment;
    if (size > shared_bytes / 4) {
      return pages_.emplace_back(size).span().first(bytes);
    }
    if (left_.size() < size) {
      left_ = pages_.emplace_back(shared_bytes).span();
    }
    std::span<std::byte> const block = left_.first(bytes);
    left_ = left_.subspan(size);
    return block;
  }

 private:
  static constexpr std::size_t shared_bytes = std::size_t{32} << 20;

  std::vector<HostPages> pages_;
  std::span<std::byte> left_;  // of the pages that small blocks share
};

}  // namespace v0
}  // namespace shardmesh
