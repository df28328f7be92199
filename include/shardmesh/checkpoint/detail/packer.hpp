// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Packs numbers and strings for another rank of the same program.
class Packer {
 public:
  /// Seven bits a byte, lowest first: most numbers are small.
  void number(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
      text_.push_back(static_cast<char>(value | 0x80));
    }
    text_.push_back(static_cast<char>(value));
  }
  void text(std::string_view value) {
    number(value.size());
    text_.append(value);
  }
  void shape(Shape const& value) {
    number(value.size());
    for (index_t const extent : value) {
      number(static_cast<std::uint64_t>(extent));
    }
  }
  [[nodiscard]] std::string finish() && { return std::move(text_); }

 private:
  std::string text_;
};

/// Reads what `Packer` wrote, in the same order.
class Unpacker {
 public:
  explicit Unpacker(std::string_view text) : text_(text) {}

  [[nodiscard]] bool at_end() const noexcept { return text_.empty(); }
  [[nodiscard]] std::uint64_t number() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      auto const byte = static_cast<unsigned char>(take(1).front());
      value |= static_cast<std::uint64_t>(byte & 0x7fU) << shift;
      if (byte < 0x80) {
        break;
      }
    }
    return value;
  }
  [[nodiscard]] std::string text() {
    auto const size = static_cast<std::size_t>(number());
    return std::string(take(size));
  }
  [[nodiscard]] Shape shape() {
    Shape value;
    for (std::uint64_t left = number(); left > 0; --left) {
      value.push_back(static_cast<index_t>(number()));
    }
    return value;
  }

 private:
  [[nodiscard]] std::string_view take(std::size_t count) {
    if (count > text_.size()) {
      throw MismatchError("shardmesh: what another rank sent ends early; do all ranks run the same "
                          "program?");
    }
    std::string_view const taken = text_.substr(0, count);
    text_.remove_prefix(count);
    return taken;
  }

  std::string_view text_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
