// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>
#include <utility>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/pickle_opcodes.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Bounds on what one pickle may cost.
struct PickleLimits {
  std::uint64_t opcodes = 200'000'000;
  std::uint64_t memo_entries = 50'000'000;
  std::uint64_t arena_bytes = std::uint64_t{4} << 30;
  std::size_t depth = 64;  ///< nesting of values, and of MARKs
};

/// A well-formed pickle that asks for an opcode, a global or a call that is not allowed.
class SHARDMESH_EXPORT PickleRefused : public CorruptError {
 public:
  // Spelled out: nvcc 13 does not survive constructors that are inherited with a default source location.
  PickleRefused(std::string path,
                std::uint64_t offset,
                std::string const& message,
                std::source_location where = std::source_location::current())
      : CorruptError(std::move(path), offset, message, where) {}
};

/// A pickle of which more would be made than its size lets expect.
class SHARDMESH_EXPORT PickleTooLarge : public PickleRefused {
 public:
  PickleTooLarge(std::string path,
                 std::uint64_t offset,
                 std::string const& message,
                 std::source_location where = std::source_location::current())
      : PickleRefused(std::move(path), offset, message, where) {}
};

namespace detail {

/// Where a pickle is being read: its opcodes and their arguments, with every length checked.
class PickleCursor {
 public:
  PickleCursor(ByteSpan pickle,
               std::string path,
               std::uint64_t position,
               std::uint64_t most_opcodes)
      : pickle_(pickle), path_(std::move(path)), position_(position), most_opcodes_(most_opcodes) {}

  /// Where the current opcode stands in the pickle.
  [[nodiscard]] std::size_t op_at() const noexcept { return op_at_; }
  /// Where the next byte stands.
  [[nodiscard]] std::size_t at() const noexcept { return at_; }
  [[nodiscard]] std::size_t remaining() const noexcept { return pickle_.size() - at_; }

  [[noreturn]] void fail(std::string const& what) const {
    throw CorruptError(path_, position_ + op_at_, located(what));
  }
  [[noreturn]] void refuse(std::string const& what) const {
    throw PickleRefused(path_, position_ + op_at_, located(what));
  }

  [[nodiscard]] ByteSpan take(std::uint64_t count) {
    if (count > pickle_.size() - at_) {
      fail(std::to_string(count) + " bytes wanted, " + std::to_string(pickle_.size() - at_) +
           " left; the pickle is truncated or damaged");
    }
    ByteSpan const bytes = pickle_.subspan(at_, static_cast<std::size_t>(count));
    at_ += static_cast<std::size_t>(count);
    return bytes;
  }
  template <class T>
  [[nodiscard]] T take_le() {
    return load_le<T>(take(sizeof(T)), 0);
  }

  [[nodiscard]] Opcode next() {
    op_at_ = at_;
    if (++opcodes_ > most_opcodes_) {
      fail("more opcodes than allowed");
    }
    return static_cast<Opcode>(take_le<std::uint8_t>());
  }

  void read_protocol() {
    if (next() != Opcode::proto) {
      fail("a pickle must start with PROTO");
    }
    auto const protocol = take_le<std::uint8_t>();
    if (protocol < 2 || protocol > 5) {
      refuse("protocol " + std::to_string(protocol) + " is not one of 2 to 5");
    }
  }

  [[nodiscard]] std::int64_t long_integer() {
    auto const count = take_le<std::uint8_t>();
    if (count > 9) {
      refuse("an integer of " + std::to_string(count) + " bytes does not fit 64 bits");
    }
    auto const value = integer_of(take(count));
    if (!value) {
      refuse("the integer does not fit 64 bits");
    }
    return *value;
  }

  /// A little-endian integer of any length; nothing if it does not fit 64 bits.
  [[nodiscard]] static std::optional<std::int64_t> integer_of(ByteSpan bytes) {
    std::size_t const count = bytes.size();
    bool const negative = count > 0 && (bytes[count - 1] & std::byte{0x80}) != std::byte{0};
    std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
    for (std::size_t i = std::min<std::size_t>(count, 8); i-- > 0;) {
      value = (value << 8) | std::to_integer<std::uint64_t>(bytes[i]);
    }
    auto const result = static_cast<std::int64_t>(value);
    bool fits = count <= 8 || (result < 0) == negative;
    for (std::size_t i = 8; i < count; ++i) {
      fits = fits && bytes[i] == (negative ? std::byte{0xff} : std::byte{0});
    }
    return fits ? std::optional(result) : std::nullopt;
  }

  [[nodiscard]] std::int64_t big_endian_bits() {
    std::uint64_t bits = 0;
    for (std::byte const byte : take(8)) {
      bits = (bits << 8) | std::to_integer<std::uint64_t>(byte);
    }
    return static_cast<std::int64_t>(bits);
  }

  [[nodiscard]] std::string_view line() {
    std::string_view const rest = as_text(pickle_).substr(at_, 512);
    std::size_t const length = rest.find('\n');
    if (length == std::string_view::npos) {
      fail("a name has no end");
    }
    at_ += length + 1;
    return rest.substr(0, length);
  }

  void read_frame() {
    if (take_le<std::uint64_t>() > pickle_.size() - at_) {
      fail("the frame reaches past the end");
    }
  }

  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  /// Of the current opcode, in the file.
  [[nodiscard]] std::uint64_t position() const noexcept { return position_ + op_at_; }

  /// `what`, and where.
  [[nodiscard]] std::string located(std::string const& what) const {
    std::string const name =
        op_at_ < pickle_.size() ? opcode_name(std::to_integer<std::uint8_t>(pickle_[op_at_])) : "?";
    return "shardmesh::read_pickle: opcode " + name + ": " + what + " [" + path_ + ", byte " +
           std::to_string(position_ + op_at_) + "]";
  }

 private:
  ByteSpan pickle_;
  std::string path_;
  std::uint64_t position_;
  std::uint64_t most_opcodes_;
  std::uint64_t opcodes_ = 0;
  std::size_t at_ = 0;
  std::size_t op_at_ = 0;
};

}  // namespace detail

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
