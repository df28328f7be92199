// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace shardmesh {
inline namespace v0 {

/// Where a pool gets memory from: `obtain(bytes)`, aligned to at least 256 bytes, and
/// `give_back(pointer, bytes)`.
template <class S>
concept BlockSource = requires(void* pointer, std::size_t bytes) {
  { S::obtain(bytes) } -> std::same_as<void*>;
  { S::give_back(pointer, bytes) } noexcept;
};

/// Memory that is costly to obtain, kept and used again: a list of free blocks for each size. Sizes
/// are rounded up to one of eight for each power of two, so that a block is at most an eighth too
/// big. Small blocks are cut from arenas. Any thread may call it.
template <BlockSource Source>
class BlockPool {
 public:
  static constexpr std::size_t alignment = 256;
  /// Bytes that are obtained at once for small blocks; a block of a quarter of it and more stands
  /// alone.
  static constexpr std::size_t arena_bytes = std::size_t{32} << 20;

  BlockPool() = default;
  BlockPool(BlockPool const&) = delete;
  BlockPool& operator=(BlockPool const&) = delete;
  ~BlockPool() {
    for (auto const& [pointer, bytes] : obtained_) {
      Source::give_back(pointer, bytes);
    }
  }

  /// The size of the block that serves `bytes`.
  [[nodiscard]] static constexpr std::size_t block_bytes(std::size_t bytes) noexcept {
    std::size_t const wanted = std::max(bytes, alignment);
    std::size_t const step = std::max(std::bit_floor(wanted) / 8, alignment);
    return (wanted + step - 1) / step * step;
  }

  /// @returns nullptr for 0 bytes.
  /// @throws what the source throws, if it has to obtain memory.
  [[nodiscard]] void* allocate(std::size_t bytes) {
    if (bytes == 0) {
      return nullptr;
    }
    std::size_t const size = block_bytes(bytes);
    std::unique_lock lock(mutex_);
    Blocks& blocks = blocks_[size];
    if (!blocks.free.empty()) {
      void* const block = blocks.free.back();
      blocks.free.pop_back();
      return block;
    }
    blocks.free.reserve(++blocks.made);  // giving back must not need memory
    if (size < arena_bytes / 4) {
      return cut(size);
    }
    lock.unlock();  // others need not wait for a big block
    void* const block = Source::obtain(size);
    lock.lock();
    return obtained_.emplace_back(block, size).first;
  }

  /// @param bytes what was asked for.
  void deallocate(void* pointer, std::size_t bytes) noexcept {
    if (pointer != nullptr) {
      std::lock_guard const lock(mutex_);
      blocks_[block_bytes(bytes)].free.push_back(pointer);
    }
  }

  /// Bytes that the pool has obtained from its source.
  [[nodiscard]] std::size_t obtained() const {
    std::lock_guard const lock(mutex_);
    std::size_t sum = 0;
    for (auto const& [pointer, bytes] : obtained_) {
      sum += bytes;
    }
    return sum;
  }

 private:
  struct Blocks {
    std::vector<void*> free;
    std::size_t made = 0;
  };

  /// A new small block. @pre the lock is held.
  [[nodiscard]] void* cut(std::size_t size) {
    if (arena_left_ < size) {
      void* const arena = Source::obtain(arena_bytes);
      obtained_.emplace_back(arena, arena_bytes);
      arena_ = static_cast<std::byte*>(arena);
      arena_left_ = arena_bytes;
    }
    arena_left_ -= size;
    return std::exchange(arena_, arena_ + size);
  }

  mutable std::mutex mutex_;
  std::map<std::size_t, Blocks> blocks_;
  std::vector<std::pair<void*, std::size_t>> obtained_;
  std::byte* arena_ = nullptr;
  std::size_t arena_left_ = 0;
};

}  // namespace v0
}  // namespace shardmesh
