// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include <shardmesh/checkpoint/format/pickle_tree.hpp>
#include <shardmesh/core/float_types.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format::detail {

/// The bytes that a text of "latin1" stands for: a character each, of which those from 0x80 on take two
/// bytes in the pickle's UTF-8.
/// @returns how many there are; more than fit if it is another text.
[[nodiscard]] inline std::size_t latin1_bytes(std::string_view text, std::span<std::uint8_t> out) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto character = static_cast<unsigned>(static_cast<std::uint8_t>(text[i]));
    if (character >= 0x80 && (character & 0xfcU) == 0xc0U && i + 1 < text.size()) {
      character = (character & 3U) << 6U | (static_cast<std::uint8_t>(text[++i]) & 0x3fU);
    } else if (character >= 0x80) {
      return out.size() + 1;
    }
    if (count == out.size()) {
      return out.size() + 1;
    }
    out[count++] = static_cast<std::uint8_t>(character);
  }
  return count;
}

template <class T>
[[nodiscard]] Value number_from(std::array<std::uint8_t, 8> const& bytes) {
  T number;
  std::memcpy(&number, bytes.data(), sizeof(number));
  if constexpr (std::is_same_v<T, Float16>) {
    return Value(static_cast<double>(static_cast<float>(number)));
  } else {
    return Value(number);
  }
}

/// A number of numpy (bool, integers, floating-point numbers up to 64 bits) as the plain number that it
/// is, exactly; nothing for other types, and for integers that need more than 63 bits.
/// @pre tree.is(scalar, PickleKind::call, PickleGlobal::numpy_scalar).
[[nodiscard]] inline std::optional<Value> read_numpy_number(PickleTree const& tree,
                                                            PickleRef scalar) {
  PickleRef const dtype = tree.arguments(scalar)[0];
  std::string_view const type = tree.text(tree.arguments(dtype)[0]);
  std::array<std::uint8_t, 8> bytes{};
  std::size_t const count =
      latin1_bytes(tree.text(tree.arguments(tree.arguments(scalar)[1])[0]), bytes);
  if (type.size() != 2 || count > bytes.size() ||
      count != static_cast<std::size_t>(type[1] - '0')) {
    return std::nullopt;
  }
  if (tree.node(dtype).number() == 1) {
    std::reverse(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
  }
  if (type == "b1") {
    return Value(bytes[0] != 0);
  }
  if (type == "f2") {
    return number_from<Float16>(bytes);
  }
  if (type == "f4") {
    return number_from<float>(bytes);
  }
  if (type == "f8") {
    return number_from<double>(bytes);
  }
  if (type[0] != 'i' && type[0] != 'u') {
    return std::nullopt;
  }
  switch (count) {
    case 1:
      return type[0] == 'i' ? number_from<std::int8_t>(bytes) : number_from<std::uint8_t>(bytes);
    case 2:
      return type[0] == 'i' ? number_from<std::int16_t>(bytes) : number_from<std::uint16_t>(bytes);
    case 4:
      return type[0] == 'i' ? number_from<std::int32_t>(bytes) : number_from<std::uint32_t>(bytes);
    case 8:
      break;
    default:
      return std::nullopt;
  }
  if (type[0] == 'u' && bytes[7] >= 0x80) {
    return std::nullopt;
  }
  return number_from<std::int64_t>(bytes);
}

}  // namespace format::detail
}  // namespace v0
}  // namespace shardmesh
