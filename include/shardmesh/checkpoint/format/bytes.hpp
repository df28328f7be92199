// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace shardmesh {
inline namespace v0 {
namespace format {

using Bytes = std::vector<std::byte>;
using ByteSpan = std::span<std::byte const>;

/// The little-endian integer at `bytes[at...]`.
/// @pre at + sizeof(T) <= bytes.size().
template <std::unsigned_integral T>
[[nodiscard]] constexpr T load_le(ByteSpan bytes, std::size_t at) noexcept {
  T value = 0;
  for (std::size_t i = sizeof(T); i-- > 0;) {
    value = static_cast<T>(static_cast<T>(value << (sizeof(T) > 1 ? 8 : 0)) |
                           static_cast<T>(std::to_integer<unsigned char>(bytes[at + i])));
  }
  return value;
}

/// Appends `value` in little-endian order.
template <std::unsigned_integral T>
void append_le(Bytes& bytes, T value) {
  std::array<std::byte, sizeof(T)> parts;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    parts[i] = static_cast<std::byte>((std::uint64_t{value} >> (8 * i)) & 0xffU);
  }
  bytes.insert(bytes.end(), parts.begin(), parts.end());
}

inline void append_text(Bytes& bytes, std::string_view text) {
  auto const* const first = reinterpret_cast<std::byte const*>(text.data());
  bytes.insert(bytes.end(), first, first + text.size());
}

[[nodiscard]] inline ByteSpan as_bytes(std::string_view text) noexcept {
  return {reinterpret_cast<std::byte const*>(text.data()), text.size()};
}

[[nodiscard]] inline std::string_view as_text(ByteSpan bytes) noexcept {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

[[nodiscard]] inline bool same_bytes(ByteSpan a, ByteSpan b) noexcept {
  return as_text(a) == as_text(b);
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
