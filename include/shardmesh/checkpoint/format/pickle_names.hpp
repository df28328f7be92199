// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/pickle_globals.hpp>
#include <shardmesh/checkpoint/format/pickle_inert.hpp>
#include <shardmesh/checkpoint/format/pickle_opcodes.hpp>
#include <shardmesh/checkpoint/format/zip_reader.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

namespace detail {

/// Looks through a pickle of any kind for the names that it would import, without making anything of it.
class PickleNames {
 public:
  explicit PickleNames(ByteSpan pickle) : text_(as_text(pickle)) {}

  /// The first name that no data is made of, in words; empty if there is none.
  [[nodiscard]] std::string find_harmful() {
    while (at_ < text_.size()) {
      auto const code = static_cast<std::uint8_t>(text_[at_++]);
      if (code == 0x2e) {  // STOP
        return {};
      }
      if (std::string found = look(code); !found.empty()) {
        return found;
      }
    }
    return "an unfinished pickle";
  }

 private:
  using Text = std::optional<std::string_view>;

  /// What one opcode imports, if that is harmful.
  [[nodiscard]] std::string look(std::uint8_t code) {
    switch (code) {
      case 0x63:    // GLOBAL
      case 0x69: {  // INST
        Text const module = line();
        push({});
        return judge(module, line());
      }
      case 0x93: {  // STACK_GLOBAL: the two texts that were put on the stack last
        Text const module = before_;
        Text const name = last_;
        push({});
        return judge(module, name);
      }
      case 0x82:
      case 0x83:
      case 0x84:
        return "a number of Python's registry of extensions";
      case 0x58:  // BINUNICODE
        return text(4);
      case 0x8c:
        return text(1);
      case 0x8d:
        return text(8);
      case 0x68:  // BINGET
        return recall(number(1));
      case 0x6a:
        return recall(number(4));
      case 0x71:  // BINPUT
        return keep(number(1));
      case 0x72:
        return keep(number(4));
      case 0x94:  // MEMOIZE
        return keep(count_);
      case 0x95:  // FRAME
        return skip(8);
      case 0x80:  // PROTO
        return skip(1);
      default:
        push({});
        return pass(code);
    }
  }

  /// Goes past an opcode that says no name.
  [[nodiscard]] std::string pass(std::uint8_t code) {
    switch (code) {
      case 0x42:  // BINBYTES
      case 0x54:  // BINSTRING
      case 0x8b:  // LONG4
        return skip(number(4));
      case 0x43:
      case 0x55:
      case 0x8a:
        return skip(number(1));
      case 0x8e:
      case 0x96:
        return skip(number(8));
      case 0x47:  // BINFLOAT
        return skip(8);
      case 0x4a:  // BININT
        return skip(4);
      case 0x4b:
        return skip(1);
      case 0x4d:
        return skip(2);
      case 0x46:  // FLOAT, INT, LONG, PERSID, STRING, UNICODE, GET, PUT: a line
      case 0x49:
      case 0x4c:
      case 0x50:
      case 0x53:
      case 0x56:
      case 0x67:
      case 0x70:
        return line() ? std::string() : "an unfinished pickle";
      default:
        return opcode_name(code).starts_with("0x") ? "an opcode that is not known" : std::string();
    }
  }

  [[nodiscard]] static std::string judge(Text module, Text name) {
    if (!module || !name) {
      return "a name that is put together while it is read";
    }
    bool const known =
        is_inert_global(*module, *name) ||
        find_global(PickleDialect::plain, *module, *name).global != PickleGlobal::none ||
        find_global(PickleDialect::tensor, *module, *name).global != PickleGlobal::none ||
        (find_global(PickleDialect::metadata, *module, *name).global != PickleGlobal::none &&
         *name != "getattr");
    return known ? std::string()
                 : shardmesh::detail::concat('"', escaped(*module), '.', escaped(*name), '"');
  }

  [[nodiscard]] std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes && at_ < text_.size(); ++i) {
      value |= std::uint64_t{static_cast<unsigned char>(text_[at_++])} << (8 * i);
    }
    return value;
  }
  [[nodiscard]] std::string skip(std::uint64_t count) {
    at_ += static_cast<std::size_t>(std::min<std::uint64_t>(count, text_.size() - at_));
    return {};
  }
  [[nodiscard]] Text line() {
    std::size_t const end = text_.find('\n', at_);
    if (end == std::string_view::npos) {
      at_ = text_.size();
      return {};
    }
    std::string_view const found = text_.substr(at_, end - at_);
    at_ = end + 1;
    return found;
  }
  [[nodiscard]] std::string text(std::size_t length_bytes) {
    std::uint64_t const length = number(length_bytes);
    std::string_view const found =
        text_.substr(at_, static_cast<std::size_t>(std::min<std::uint64_t>(length, text_.size())));
    push(found);
    return skip(length);
  }

  void push(Text text) {
    before_ = last_;
    last_ = text;
    is_text_ = text.has_value();
  }
  /// Names are short, and few: what is longer, or one too many, is not known later.
  [[nodiscard]] std::string keep(std::uint64_t place) {
    ++count_;
    if (is_text_ && last_->size() <= 512 && memo_.size() < 65'536) {
      memo_.insert_or_assign(place, *last_);
    } else {
      memo_.erase(place);
    }
    return {};
  }
  [[nodiscard]] std::string recall(std::uint64_t place) {
    auto const found = memo_.find(place);
    push(found == memo_.end() ? Text() : Text(found->second));
    return {};
  }

  std::string_view text_;
  std::size_t at_ = 0;
  Text before_;
  Text last_;
  bool is_text_ = false;
  std::uint64_t count_ = 0;
  std::unordered_map<std::uint64_t, std::string_view> memo_;
};

}  // namespace detail

/// What whoever unpickles the value would import that is no data: the first name, or why the names cannot be
/// told; empty for a value that is plain, or made of what checkpoints are made of. As for `.metadata`
/// (`is_inert_global`), Python's standard library counts as harmful but for its types of data, and so do
/// PyTorch's functions; classes and functions of other packages do not.
[[nodiscard]] inline std::string harmful_name(Value const& value) {
  auto const* const opaque = value.get<Value::Opaque>();
  if (opaque == nullptr || opaque->trusted) {
    return {};
  }
  try {
    ZipArchive const archive = read_zip(opaque->archive);
    ZipEntry const* const pickle = archive.find("data.pkl");
    return pickle == nullptr
               ? std::string("no pickle")
               : detail::PickleNames(zip_record(opaque->archive, *pickle)).find_harmful();
  } catch (CorruptError const&) {
    return "a damaged archive";
  }
}

/// Before a value is written for others to load.
/// @param key  for the message.
/// @throws UnsupportedError for one that would run code where it is unpickled.
inline void refuse_harmful(Value const& value, std::string const& key) {
  if (std::string const name = harmful_name(value); !name.empty()) {
    throw UnsupportedError(shardmesh::detail::concat(
        "shardmesh::save: the value \"", escaped(key), "\" is a pickle that imports ", name,
        ": whoever loads it with PyTorch may run what somebody has put there. Leave it out; if you "
        "know "
        "where it comes from, set `trusted` of its Value::Opaque"));
  }
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
