// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>

#include <shardmesh/memory/host_block.hpp>

namespace shardmesh {
inline namespace v0 {

/// Host memory for many tensors that come and go together: small pieces share blocks, so that they cost neither the
/// allocator nor the kernel anything of their own. A block goes back to the pool with the last of its pieces.
class HostBuckets {
 public:
  static constexpr std::size_t alignment = 64;
  /// A piece of so many bytes has a block of its own.
  static constexpr std::size_t least_alone = std::size_t{1} << 18;

  /// Uninitialised bytes, aligned to 64, for as long as the pointer or a copy of it lives; nullptr for 0 bytes.
  /// @tparam Block  as `HostBlock`; a template, so that blocks are compiled only where somebody takes one.
  /// @throws std::bad_alloc
  template <class Block = HostBlock>
  [[nodiscard]] std::shared_ptr<std::byte> take(std::size_t bytes) {
    if (bytes == 0) {
      return nullptr;
    }
    if (bytes >= least_alone) {
      auto const block = std::make_shared<Block>(bytes);
      return {block, block->data()};
    }
    std::size_t const size = (bytes + alignment - 1) / alignment * alignment;
    if (bucket_ == nullptr || bucket_->size() - used_ < size) {
      bucket_ = std::make_shared<Block>(std::max(next_, size));
      used_ = 0;
      next_ = std::min(2 * next_, most_shared);
    }
    std::shared_ptr<std::byte> piece(bucket_, bucket_->data() + used_);
    used_ += size;
    return piece;
  }

 private:
  static constexpr std::size_t most_shared = std::size_t{4} << 20;

  std::shared_ptr<HostBlock> bucket_;
  std::size_t used_ = 0;                     // bytes of it
  std::size_t next_ = std::size_t{1} << 16;  // bytes of the next one
};

}  // namespace v0
}  // namespace shardmesh
