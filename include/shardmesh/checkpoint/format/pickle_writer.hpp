// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/pickle_opcodes.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Writes pickles of protocol 2: no frames, explicit memo, the smallest form of every integer.
/// The memo numbers what is put into it from 0, and holds each global and each text once.
class PickleWriter {
 public:
  PickleWriter() {
    op(Opcode::proto);
    pickle_.push_back(std::byte{2});
  }

  void op(Opcode code) { pickle_.push_back(static_cast<std::byte>(code)); }

  template <class... Codes>
  void ops(Codes... codes) {
    (op(codes), ...);
  }

  /// A class or function; fetched from the memo when it was written before.
  void global(std::string_view module, std::string_view name) {
    std::string const key = std::string(module) + '\n' + std::string(name) + '\n';
    if (!fetch(key)) {
      op(Opcode::global);
      append_text(pickle_, key);
      put(key);
    }
  }

  /// A string; fetched from the memo when it was written before.
  void text(std::string_view value) {
    std::string const key = '"' + std::string(value);  // no global starts with a quote
    if (!fetch(key)) {
      op(Opcode::binunicode);
      append_le(pickle_, static_cast<std::uint32_t>(value.size()));
      append_text(pickle_, value);
      put(key);
    }
  }

  void integer(std::int64_t value) {
    if (value >= 0 && value < 0x100) {
      op(Opcode::binint1);
      append_le(pickle_, static_cast<std::uint8_t>(value));
    } else if (value >= 0 && value < 0x10000) {
      op(Opcode::binint2);
      append_le(pickle_, static_cast<std::uint16_t>(value));
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
      op(Opcode::binint);
      append_le(pickle_, static_cast<std::uint32_t>(static_cast<std::int32_t>(value)));
    } else {
      long_integer(value);
    }
  }

  void real(double value) {
    op(Opcode::binfloat);
    auto const bits = std::bit_cast<std::uint64_t>(value);
    for (int shift = 56; shift >= 0; shift -= 8) {
      pickle_.push_back(static_cast<std::byte>((bits >> shift) & 0xffU));
    }
  }

  void boolean(bool value) { op(value ? Opcode::newtrue : Opcode::newfalse); }

  /// Puts the value on top of the stack into the memo and returns its number.
  std::uint32_t memoize() {
    if (memo_size_ < 0x100) {
      op(Opcode::binput);
      append_le(pickle_, static_cast<std::uint8_t>(memo_size_));
    } else {
      op(Opcode::long_binput);
      append_le(pickle_, memo_size_);
    }
    return memo_size_++;
  }

  /// Fetches entry `number` of the memo.
  void get(std::uint32_t number) {
    if (number < 0x100) {
      op(Opcode::binget);
      append_le(pickle_, static_cast<std::uint8_t>(number));
    } else {
      op(Opcode::long_binget);
      append_le(pickle_, number);
    }
  }

  /// Ends the pickle and hands it over.
  [[nodiscard]] Bytes finish() && {
    op(Opcode::stop);
    return std::move(pickle_);
  }

 private:
  bool fetch(std::string const& key) {
    auto const found = memo_.find(key);
    if (found == memo_.end()) {
      return false;
    }
    get(static_cast<std::uint32_t>(found->second));
    return true;
  }

  void put(std::string const& key) { memo_.emplace(key, memoize()); }

  /// Two's complement, little-endian, as few bytes as keep the sign.
  void long_integer(std::int64_t value) {
    std::uint8_t count = 8;
    while (count > 1 && (value >> (8 * (count - 1) - 1)) == (value < 0 ? -1 : 0)) {
      --count;
    }
    op(Opcode::long1);
    append_le(pickle_, count);
    for (int i = 0; i < count; ++i) {
      pickle_.push_back(
          static_cast<std::byte>((static_cast<std::uint64_t>(value) >> (8 * i)) & 0xffU));
    }
  }

  Bytes pickle_;
  std::unordered_map<std::string, std::size_t> memo_;
  std::uint32_t memo_size_ = 0;
};

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
