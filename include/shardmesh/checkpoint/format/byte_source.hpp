// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// A run of bytes somewhere: an item of a data file, or a whole file. `read` is only asked for
/// ranges inside [0, size()), and what it gives is used before the next `read`.
template <class S>
concept ByteSource = requires(S& source, S const& fixed, std::uint64_t offset, std::size_t count) {
  { fixed.size() } -> std::convertible_to<std::uint64_t>;
  { fixed.path() } -> std::convertible_to<std::string const&>;
  { fixed.position() } -> std::convertible_to<std::uint64_t>;
  { source.read(offset, count) } -> std::convertible_to<ByteSpan>;
};

/// Bytes in memory. `path` and `position` (of the first byte in that file) serve error messages.
class SpanSource {
 public:
  explicit SpanSource(ByteSpan bytes, std::string path = "(memory)", std::uint64_t position = 0)
      : bytes_(bytes), path_(std::move(path)), position_(position) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  /// @pre offset + count <= size().
  [[nodiscard]] ByteSpan read(std::uint64_t offset, std::size_t count) const {
    return bytes_.subspan(static_cast<std::size_t>(offset), count);
  }

 private:
  ByteSpan bytes_;
  std::string path_;
  std::uint64_t position_;
};

/// The first and the last bytes of an item whose middle is not in memory.
class EndsSource {
 public:
  /// Thrown where bytes of the middle are asked for: the item must then be read whole.
  struct NotHere {};

  /// @param size  of the whole item.
  EndsSource(
      ByteSpan head, ByteSpan tail, std::uint64_t size, std::string path, std::uint64_t position)
      : head_(head), tail_(tail), size_(size), path_(std::move(path)), position_(position) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  /// @pre offset + count <= size().
  /// @throws NotHere
  [[nodiscard]] ByteSpan read(std::uint64_t offset, std::size_t count) const {
    if (offset + count <= head_.size()) {
      return head_.subspan(static_cast<std::size_t>(offset), count);
    }
    std::uint64_t const start = size_ - tail_.size();
    if (offset < start) {
      throw NotHere{};
    }
    return tail_.subspan(static_cast<std::size_t>(offset - start), count);
  }

 private:
  ByteSpan head_;
  ByteSpan tail_;
  std::uint64_t size_;
  std::string path_;
  std::uint64_t position_;
};

/// Throws the CorruptError for byte `offset` of `source`.
template <ByteSource S>
[[noreturn]] void fail_corrupt(S const& source, std::uint64_t offset, std::string const& what) {
  std::uint64_t const at = source.position() + offset;
  throw CorruptError(source.path(), at,
                     what + " [" + source.path() + ", byte " + std::to_string(at) + "]");
}

/// `count` bytes at `offset`.
/// @throws CorruptError if they do not all lie inside the source.
template <ByteSource S>
[[nodiscard]] ByteSpan read_checked(S& source,
                                    std::uint64_t offset,
                                    std::uint64_t count,
                                    char const* what) {
  if (offset > source.size() || count > source.size() - offset) {
    fail_corrupt(source, offset,
                 std::string("shardmesh: ") + what + " reaches past the end (" +
                     std::to_string(count) + " bytes wanted); the file is truncated or damaged");
  }
  return source.read(offset, static_cast<std::size_t>(count));
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
