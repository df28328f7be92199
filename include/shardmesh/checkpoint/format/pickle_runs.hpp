// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <vector>

namespace shardmesh {
inline namespace v0 {
namespace format::detail {

/// Runs of numbers, each at one place, in blocks that never move: what was added stays where it is, and
/// nothing is held twice while a table grows.
class PickleRuns {
 public:
  using Run = std::span<std::uint32_t>;

  /// The `count` numbers that start at `start`.
  [[nodiscard]] Run at(std::uint32_t start, std::size_t count) noexcept {
    return count == 0 ? Run() : Run(blocks_[start >> bits]).subspan(start & (block - 1), count);
  }
  [[nodiscard]] std::span<std::uint32_t const> at(std::uint32_t start,
                                                  std::size_t count) const noexcept {
    return count == 0 ? std::span<std::uint32_t const>()
                      : std::span<std::uint32_t const>(blocks_[start >> bits])
                            .subspan(start & (block - 1), count);
  }

  /// Room for `count` numbers.
  /// @returns where it starts.
  [[nodiscard]] std::uint32_t allocate(std::size_t count) {
    if (count == 0) {
      return 0;
    }
    if (count > block / 4) {  // a block of its own, behind which nothing is put
      return start_block(count);
    }
    if (open_ == none || blocks_[open_].size() + count > block) {
      open_ = start_block(0) >> bits;
      blocks_[open_].reserve(block);
    }
    std::size_t const start = blocks_[open_].size();
    blocks_[open_].resize(start + count);
    return static_cast<std::uint32_t>((open_ << bits) | start);
  }

  /// Makes room for `more` numbers behind the run of `count` that starts at `start`, if it is the last one.
  [[nodiscard]] bool extend(std::uint32_t start, std::size_t count, std::size_t more) {
    std::size_t const number = start >> bits;
    std::size_t const end = (start & (block - 1)) + count;
    if (count == 0 || number != open_ || blocks_[open_].size() != end || end + more > block) {
      return false;
    }
    blocks_[open_].resize(end + more);
    return true;
  }

  /// Bytes that the blocks take.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  static constexpr std::size_t bits = 14;
  using Block = std::vector<std::uint32_t>;
  static constexpr std::size_t block = std::size_t{1} << bits;
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  std::uint32_t start_block(std::size_t count) {
    if (blocks_.size() >> (32 - bits) != 0) {
      throw std::bad_alloc();  // tens of gigabytes of them
    }
    blocks_.emplace_back(count);
    bytes_ += sizeof(Block) + (count == 0 ? block : count) * sizeof(std::uint32_t);
    return static_cast<std::uint32_t>((blocks_.size() - 1) << bits);
  }

  std::vector<Block> blocks_;
  std::size_t open_ = none;
  std::uint64_t bytes_ = 0;
};

}  // namespace format::detail
}  // namespace v0
}  // namespace shardmesh
