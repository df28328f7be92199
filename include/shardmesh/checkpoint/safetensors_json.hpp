// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// JSON as safetensors use it, read strictly and as a stream: events of nlohmann's SAX parser come in, and
// nothing is kept but what the reader of a kind of file makes of them.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <shardmesh/checkpoint/format/budget.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format::detail {

/// How many members the objects of a text have at the most, by nesting: known before anything is made of
/// them, so that tables have their size from the start.
struct JsonCounts {
  std::size_t outer = 0;  ///< of the outermost object
  std::size_t inner = 0;  ///< of the largest of the objects in it
};

[[nodiscard]] inline JsonCounts count_members(std::string_view text) {
  JsonCounts counts;
  std::size_t depth = 0;
  std::size_t inner = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char const c = text[i];
    if (in_string) {
      i += c == '\\' ? 1U : 0U;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      inner = ++depth == 2 ? 0 : inner;
    } else if (c == '}' || c == ']') {
      depth -= depth > 0 ? 1U : 0U;
    } else if (c == ':') {
      counts.outer += depth == 1 ? 1U : 0U;
      inner += depth == 2 ? 1U : 0U;
      counts.inner = std::max(counts.inner, inner);
    }
  }
  return counts;
}

/// The four hexadecimal digits of a text at `at`; 0x10000 if there are not so many.
[[nodiscard]] inline unsigned hex4(std::string_view text, std::size_t at) {
  unsigned value = 0;
  for (std::size_t i = at; i < at + 4; ++i) {
    std::size_t const digit =
        i < text.size() ? std::string_view("0123456789abcdef0123456789ABCDEF").find(text[i])
                        : std::string_view::npos;
    if (digit == std::string_view::npos) {
      return 0x10000;
    }
    value = value * 16 + static_cast<unsigned>(digit % 16);
  }
  return value;
}

/// How many characters an escape at `at` has; 0 if it is none of JSON's.
[[nodiscard]] inline std::size_t escape_length(std::string_view text, std::size_t at) {
  char const kind = at + 1 < text.size() ? text[at + 1] : '\0';
  if (kind != 'u') {
    return std::string_view("\"\\/bfnrt").find(kind) == std::string_view::npos ? 0 : 2;
  }
  unsigned const first = hex4(text, at + 2);
  if (first < 0xd800 || (first > 0xdfff && first < 0x10000)) {
    return 6;
  }
  bool const is_pair = first < 0xdc00 && text.substr(at + 6, 2) == "\\u" &&
                       hex4(text, at + 8) >= 0xdc00 && hex4(text, at + 8) <= 0xdfff;
  return is_pair ? 12 : 0;
}

/// Where a string, number or word is none; the size of the text if all are, as far as that can be seen without
/// knowing where they stand. The parser would see it as well, but tells of a wrong token by several copies of
/// it, however long it is.
[[nodiscard]] inline std::size_t find_bad_token(std::string_view text) {
  constexpr std::size_t longest_word = 64;
  std::size_t start = text.size();  // of the string
  std::size_t word = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char const c = text[i];
    if (start == text.size()) {
      start = c == '"' ? i : start;
      word = std::string_view(" \t\r\n,:{}[]\"").find(c) == std::string_view::npos ? word + 1 : 0;
      if (word > longest_word) {
        return i;
      }
    } else if (c == '"') {
      start = text.size();
    } else if (c == '\\') {
      std::size_t const length = escape_length(text, i);
      if (length == 0) {
        return i;
      }
      i += length - 1;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      return i;
    }
  }
  return start;
}

/// The first of two equal names in a list, or nullptr.
template <class T, class NameOf>
[[nodiscard]] std::string const* find_twice(std::vector<T> const& list, NameOf name_of) {
  std::vector<std::uint32_t> order(list.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(),
            [&](std::uint32_t a, std::uint32_t b) { return name_of(list[a]) < name_of(list[b]); });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (name_of(list[order[i - 1]]) == name_of(list[order[i]])) {
      return &name_of(list[order[i]]);
    }
  }
  return nullptr;
}

/// The events, all of which are refused here; a reader takes what it knows. What it takes is paid for out
/// of a budget in proportion to the text.
class StrictJson : public nlohmann::json_sax<nlohmann::json> {
 public:
  StrictJson(StrictJson const&) = delete;
  StrictJson& operator=(StrictJson const&) = delete;
  ~StrictJson() override = default;

  bool null() override { return problem("null"); }
  bool boolean(bool) override { return problem("true or false"); }
  bool number_float(number_float_t, string_t const&) override {
    return problem("a number that is no integer");
  }
  bool binary(binary_t&) override { return problem("binary"); }
  bool number_integer(number_integer_t) override { return problem("a negative number"); }
  bool number_unsigned(number_unsigned_t) override {
    return problem("a number out of place or range");
  }
  bool string(string_t&) override { return problem("a string out of place"); }
  bool start_array(std::size_t) override { return problem("a list out of place"); }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position,
                   std::string const&,
                   nlohmann::json::exception const&) override {
    position_ = position;
    return false;
  }

 protected:
  /// @param path  of the file, and
  /// @param before, after  what stands around it in messages.
  StrictJson(std::string_view text,
             std::string path,
             std::string_view before = "the safetensors header of ",
             std::string_view after = " cannot be read: ")
      : text_(text),
        path_(std::move(path)),
        before_(before),
        after_(after),
        budget_(memory_for(text.size())) {}

  /// @throws CorruptError naming the byte.
  void parse() {
    if (!is_utf8(text_) || text_.find('\0') != std::string_view::npos) {
      refuse("it is no valid JSON");
    }
    if (text_.starts_with("\xef\xbb\xbf")) {  // which the parser would pass over
      refuse("it starts with a byte-order mark");
    }
    if (std::size_t const at = find_bad_token(text_); at < text_.size()) {
      position_ = at + 1;
      refuse("it is no valid JSON");
    }
    if (!nlohmann::json::sax_parse(text_.begin(), text_.end(), this)) {
      refuse(problem_.empty() ? "it is no valid JSON" : problem_);
    }
  }

  [[noreturn]] void refuse(std::string const& what) const {
    throw CorruptError(
        path_, position_,
        shardmesh::detail::concat("shardmesh: ", before_, path_, after_, what,
                                  position_ > 0 ? " (character " + std::to_string(position_) + ")"
                                                : std::string()));
  }
  /// Ends the reading, if a callback returns it.
  bool problem(std::string_view what) {
    problem_ = shardmesh::detail::concat("it has ", what);
    return false;
  }
  bool twice(std::string_view name) {
    return problem(shardmesh::detail::concat("the name \"", escaped(name), "\" twice"));
  }
  [[noreturn]] void refuse_twice(std::string_view name) {
    twice(name);
    refuse(problem_);
  }
  [[nodiscard]] static bool has_nul(std::string const& text) {
    return text.find('\0') != std::string::npos;
  }

  /// Before so many bytes are taken.
  void charge(std::uint64_t bytes) {
    if (!budget_.take(bytes)) {
      refuse("what it lists would take more memory than a file of its size is read with");
    }
  }
  /// A text to keep, in no more memory than it needs.
  [[nodiscard]] std::string keep(std::string const& text) {
    charge(text_bytes(text.size()));
    return std::string(text.data(), text.size());
  }

  [[nodiscard]] std::string_view text() const noexcept { return text_; }
  [[nodiscard]] std::string const& path() const noexcept { return path_; }

 private:
  std::string_view text_;
  std::string path_;
  std::string_view before_;
  std::string_view after_;
  Budget budget_;
  std::string problem_;
  std::size_t position_ = 0;
};

}  // namespace format::detail
}  // namespace v0
}  // namespace shardmesh
