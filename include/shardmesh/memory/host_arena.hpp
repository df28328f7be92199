// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include <shardmesh/memory/host_block.hpp>

namespace shardmesh {
inline namespace v0 {

/// Blocks of host memory that are all given back at once, with the arena. Small ones are cut from blocks that they share,
/// of which each is twice as large as the one before.
class HostArena {
 public:
  static constexpr std::size_t alignment = 64;

  /// Uninitialised bytes, aligned to 64; they last as long as the arena.
  /// @throws std::bad_alloc
  [[nodiscard]] std::span<std::byte> take(std::size_t bytes) {
    std::size_t const size = (bytes + alignment - 1) / alignment * alignment;
    if (left_.size() < size) {
      if (size > least_shared / 4) {
        return blocks_.emplace_back(size).span().first(bytes);
      }
      left_ = blocks_.emplace_back(shared_).span();
      shared_ = std::min(2 * shared_, most_shared);
    }
    std::span<std::byte> const block = left_.first(bytes);
    left_ = left_.subspan(size);
    return block;
  }

 private:
  static constexpr std::size_t least_shared = std::size_t{1} << 20;
  static constexpr std::size_t most_shared = std::size_t{32} << 20;

  std::vector<HostBlock> blocks_;
  std::size_t shared_ = least_shared;  // of the next block that small ones share
  std::span<std::byte> left_;          // of the last one
};

}  // namespace v0
}  // namespace shardmesh
