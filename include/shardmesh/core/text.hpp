// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace shardmesh {
inline namespace v0 {

/// `text` fit for an error message or a log: control characters, backslashes, double quotes and
/// bytes beyond ASCII become `\xNN`, and what lies beyond `most` bytes becomes "...".
[[nodiscard]] inline std::string escaped(std::string_view text, std::size_t most = 200) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string result;
  for (char const c : text.substr(0, most)) {
    auto const byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e || c == '\\' || c == '"') {
      result += "\\x";
      result += digits[byte >> 4];
      result += digits[byte & 15U];
    } else {
      result += c;
    }
  }
  return text.size() > most ? result + "..." : result;
}

namespace detail {

/// How many bytes of control characters stand at `at`: 2 for those that UTF-8 writes as two bytes.
[[nodiscard]] constexpr std::size_t control_bytes(std::string_view text, std::size_t at) noexcept {
  auto const byte = static_cast<unsigned char>(text[at]);
  if (byte == 0xc2 && at + 1 < text.size()) {
    auto const next = static_cast<unsigned char>(text[at + 1]);
    return next >= 0x80 && next <= 0x9f ? 2 : 0;
  }
  return (byte < 0x20 && byte != '\n') || byte == 0x7f ? 1 : 0;
}

/// `text` with control characters other than ends of lines as "\\x1b": a terminal that shows it does nothing
/// but show it. Other text stays, in whatever language.
[[nodiscard]] inline std::string printable(std::string const& text) {
  std::string result;
  std::size_t kept = 0;  // up to here it is in `result`
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (std::size_t const bytes = control_bytes(text, i); bytes > 0) {
      result += text.substr(kept, i - kept) + escaped(std::string_view(text).substr(i, bytes));
      kept = i + bytes;
      i = kept - 1;
    }
  }
  return kept == 0 ? text : result + text.substr(kept);
}

/// Texts and characters, one after the other. What is put together for people to read, in loops above all,
/// is written so, not with `+` between temporaries: of the insertion at the front that this can mean,
/// g++ 12 warns (-Wrestrict, wrongly) once it is inlined.
template <class... Parts>
[[nodiscard]] std::string concat(Parts const&... parts) {
  std::string text;
  (static_cast<void>(text += parts), ...);
  return text;
}

/// `"a", "b"`: each in quotes, fit for a message; of very many the first thousand and how many more.
template <class Keys>
[[nodiscard]] std::string key_list(Keys const& keys) {
  constexpr std::size_t most = 1000;
  std::string text;
  std::size_t count = 0;
  for (auto const& key : keys) {
    if (++count <= most) {
      text += concat(text.empty() ? "\"" : ", \"", escaped(key), '"');
    }
  }
  return count > most ? concat(text, " and ", std::to_string(count - most), " more") : text;
}

/// Bytes of the UTF-8 sequence that starts with `lead`, and the smallest code point that may be
/// written with that many; 0 bytes for a byte that starts none.
struct Utf8Lead {
  std::size_t bytes;
  char32_t payload;
  char32_t smallest;
};

[[nodiscard]] constexpr Utf8Lead utf8_lead(unsigned char lead) noexcept {
  if (lead < 0x80) {
    return {1, lead, 0};
  }
  if (lead >= 0xc0 && lead < 0xe0) {
    return {2, lead & 0x1fU, 0x80};
  }
  if (lead >= 0xe0 && lead < 0xf0) {
    return {3, lead & 0x0fU, 0x800};
  }
  if (lead >= 0xf0 && lead < 0xf8) {
    return {4, lead & 0x07U, 0x10000};
  }
  return {0, 0, 0};
}

}  // namespace detail

/// Is `text` well-formed UTF-8: no overlong forms, no surrogates, nothing beyond U+10FFFF?
[[nodiscard]] constexpr bool is_utf8(std::string_view text) noexcept {
  for (std::size_t i = 0; i < text.size();) {
    auto const [bytes, payload, smallest] = detail::utf8_lead(static_cast<unsigned char>(text[i]));
    if (bytes == 0 || text.size() - i < bytes) {
      return false;
    }
    char32_t code = payload;
    for (std::size_t k = 1; k < bytes; ++k) {
      auto const next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xc0U) != 0x80) {
        return false;
      }
      code = (code << 6) | (next & 0x3fU);
    }
    if (code < smallest || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
      return false;
    }
    i += bytes;
  }
  return true;
}

}  // namespace v0
}  // namespace shardmesh
