// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// What a reader may take for an input of so many bytes, beside the input: 16 MiB and four times as much.
/// A small file that would expand to more is meant to, and is refused before it does.
[[nodiscard]] constexpr std::uint64_t memory_for(std::uint64_t input) noexcept {
  return (std::uint64_t{16} << 20) + 4 * std::min(input, std::uint64_t{1} << 60);
}

namespace detail {

/// Bytes that a block of the allocator takes: its own size, its head, and what rounding adds.
[[nodiscard]] constexpr std::uint64_t heap_bytes(std::uint64_t size) noexcept {
  return size == 0 ? 0 : (size + 23) / 16 * 16;
}
/// Bytes that a text takes beside the string itself.
[[nodiscard]] constexpr std::uint64_t text_bytes(std::uint64_t size) noexcept {
  return size < 16 ? 0 : heap_bytes(size + 1);
}

/// Bytes that may still be taken.
class Budget {
 public:
  explicit constexpr Budget(std::uint64_t bytes) noexcept : left_(bytes) {}

  /// @returns false, and takes nothing, if there is not so much left.
  [[nodiscard]] constexpr bool take(std::uint64_t bytes) noexcept {
    bool const allowed = bytes <= left_;
    left_ -= allowed ? bytes : 0;
    return allowed;
  }
  [[nodiscard]] constexpr std::uint64_t left() const noexcept { return left_; }

 private:
  std::uint64_t left_;
};

}  // namespace detail

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
