// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The JSON header of a safetensors file, read strictly. Source of the rules: the format
// description and checks of https://github.com/huggingface/safetensors.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/file_name.hpp>
#include <shardmesh/checkpoint/safetensors_dtypes.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// A tensor of a safetensors file: row-major elements at bytes [begin, end) of the data.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::float32;
  Shape shape;  ///< of elements: packed numbers count as the element that they are packed in
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  /// What it has that this library has not, e.g. "unknown dtype 'F2'": `dtype` then means nothing, and
  /// `shape` is what the file says. Empty for a tensor that can be read.
  std::string unsupported{};
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> tensors;  ///< by `begin`; without holes or overlaps
  std::vector<std::pair<std::string, std::string>> metadata;

  [[nodiscard]] std::uint64_t data_bytes() const noexcept {
    return tensors.empty() ? 0 : tensors.back().end;
  }
  /// The value of a metadata key, or nullptr.
  [[nodiscard]] std::string const* find_metadata(std::string_view key) const noexcept {
    for (auto const& [name, value] : metadata) {
      if (name == key) {
        return &value;
      }
    }
    return nullptr;
  }
};

/// Headers above this size are refused, as the reference implementation does.
inline constexpr std::uint64_t most_safetensors_header_bytes = 100'000'000;

/// Metadata that the files of `save_safetensors_by_rank` have besides DCP's: the shapes of the whole
/// tensors, and how many files there are. Without them a file of a last rank can be lost unseen.
inline constexpr std::string_view shapes_key = "SHARDMESH_SHAPES";
inline constexpr std::string_view files_key = "SHARDMESH_FILES";

namespace detail {

/// A JSON object of objects, as far as safetensors use it: text, lists of non-negative integers,
/// and objects of such. Events of nlohmann's SAX parser come in; duplicate names, numbers that are
/// no plain integer, and anything nested deeper are refused, which its document model would not do.
struct JsonMember {
  std::string name;
  std::optional<std::string> text;
  std::vector<std::uint64_t> numbers;
  bool is_list = false;
  std::vector<JsonMember> members;  ///< of an object
};

class StrictJson : public nlohmann::json_sax<nlohmann::json> {
 public:
  /// @throws CorruptError naming the byte.
  [[nodiscard]] static JsonMember parse(std::string_view text, std::string const& path) {
    StrictJson handler;
    handler.path_ = path;
    if (!is_utf8(text) || text.find('\0') != text.npos ||
        !nlohmann::json::sax_parse(text.begin(), text.end(), &handler)) {
      handler.refuse(handler.problem_.empty() ? "it is no valid JSON" : handler.problem_);
    }
    return std::move(handler.root_);
  }

  bool null() override { return problem("null"); }
  bool boolean(bool) override { return problem("true or false"); }
  bool number_float(number_float_t, string_t const&) override {
    return problem("a number that is no integer");
  }
  bool binary(binary_t&) override { return problem("binary"); }
  bool number_integer(number_integer_t) override { return problem("a negative number"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (!in_list_ || value > static_cast<std::uint64_t>(std::numeric_limits<index_t>::max())) {
      return problem("a number out of place or range");
    }
    stack_.back()->members.back().numbers.push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (in_list_ || stack_.empty()) {
      return problem("a string out of place");
    }
    if (value.find('\0') != value.npos) {
      return problem("a string with a NUL");
    }
    stack_.back()->members.back().text = std::move(value);
    return true;
  }
  bool start_object(std::size_t) override {
    if (in_list_ || stack_.size() > 2) {
      return problem("an object nested too deep");
    }
    stack_.push_back(stack_.empty() ? &root_ : &stack_.back()->members.back());
    names_.emplace_back();
    return true;
  }
  bool key(string_t& name) override {
    if (!names_.back().insert(name).second) {
      return problem("the name \"" + escaped(name) + "\" twice");
    }
    if (name.find('\0') != name.npos) {
      return problem("a name with a NUL");
    }
    stack_.back()->members.emplace_back();
    stack_.back()->members.back().name = std::move(name);
    return true;
  }
  bool end_object() override {
    stack_.pop_back();
    names_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    if (in_list_ || stack_.empty()) {
      return problem("a list out of place");
    }
    in_list_ = true;
    stack_.back()->members.back().is_list = true;
    return true;
  }
  bool end_array() override {
    in_list_ = false;
    return true;
  }
  bool parse_error(std::size_t position,
                   std::string const&,
                   nlohmann::json::exception const&) override {
    position_ = position;
    return false;
  }

 private:
  bool problem(std::string what) {
    problem_ = "it has " + std::move(what);
    return false;
  }
  [[noreturn]] void refuse(std::string const& what) const {
    throw CorruptError(path_, position_,
                       "shardmesh: the safetensors header of " + path_ +
                           " cannot be read: " + what +
                           (position_ > 0 ? " (character " + std::to_string(position_) + ")" : ""));
  }

  JsonMember root_;
  std::vector<JsonMember*> stack_;
  std::vector<std::set<std::string>> names_;
  bool in_list_ = false;
  std::string path_;
  std::string problem_;
  std::size_t position_ = 0;
};

[[noreturn]] inline void refuse_entry(std::string const& path,
                                      std::string const& name,
                                      std::string const& what) {
  throw CorruptError(path, 0,
                     "shardmesh: " + path + ": the safetensors header says of \"" + escaped(name) +
                         "\" " + what);
}

/// Takes the element type, and checks the bytes against it and the shape. A tensor of a type that the
/// format had not yet, whose rows end inside of a byte, or that has too many dimensions, is one that
/// cannot be read.
/// @param extents  of its shape.
inline void take_dtype(SafetensorsEntry& entry,
                       std::vector<std::uint64_t> const& extents,
                       std::string const& name,
                       std::string const& path) {
  SafetensorsDtype const* const known = find_safetensors_dtype(name);
  std::uint64_t bits = known == nullptr ? 8 : known->bits;
  std::string shape_text;
  for (std::uint64_t const extent : extents) {
    shape_text += shardmesh::detail::concat(shape_text.empty() ? "" : ", ", std::to_string(extent));
  }
  shape_text = "(" + shape_text + ")";
  for (std::uint64_t const extent : extents) {
    if (__builtin_mul_overflow(bits, extent, &bits)) {
      refuse_entry(path, entry.name, "the shape " + shape_text + ", which overflows");
    }
  }
  std::string const what = name + " " + shape_text;
  if (known != nullptr && bits % 8 != 0) {
    refuse_entry(path, entry.name,
                 "that it is " + escaped(what) + ", whose " + std::to_string(bits) +
                     " bits are not whole bytes");
  }
  if (entry.end < entry.begin || (known != nullptr && entry.end - entry.begin != bits / 8)) {
    refuse_entry(path, entry.name,
                 "bytes " + std::to_string(entry.begin) + " to " + std::to_string(entry.end) +
                     ", but " + escaped(what) + " has " + std::to_string(bits / 8));
  }
  if (extents.size() > max_rank) {
    entry.unsupported = std::to_string(extents.size()) + " dimensions; at most " +
                        std::to_string(max_rank) + " are supported";
    return;
  }
  for (std::uint64_t const extent : extents) {
    entry.shape.push_back(static_cast<index_t>(extent));
  }
  if (known == nullptr) {
    entry.unsupported = "unknown dtype '" + escaped(name) + "'";
    return;
  }
  auto const in_memory = shape_in_memory(*known, entry.shape);
  if (!in_memory) {
    entry.unsupported = what + ", whose rows are not multiples of " +
                        std::to_string(known->packed) + " numbers and end inside of a byte";
    return;
  }
  entry.dtype = known->dtype;
  entry.shape = *in_memory;
}

[[nodiscard]] inline SafetensorsEntry read_safetensors_entry(JsonMember const& member,
                                                             std::string const& path) {
  SafetensorsEntry entry;
  entry.name = member.name;
  std::vector<std::uint64_t> const* shape = nullptr;
  std::optional<std::string> dtype;
  for (JsonMember const& part : member.members) {
    if (part.name == "dtype" && part.text) {
      dtype = part.text;
    } else if (part.name == "shape" && part.is_list) {
      shape = &part.numbers;
    } else if (part.name == "data_offsets" && part.is_list && part.numbers.size() == 2) {
      entry.begin = part.numbers[0];
      entry.end = part.numbers[1];
    } else {
      refuse_entry(path, member.name, "something else than dtype, shape and data_offsets");
    }
  }
  if (member.members.size() != 3 || shape == nullptr || !dtype) {
    refuse_entry(path, member.name, "too little: dtype, shape and data_offsets are needed");
  }
  take_dtype(entry, *shape, *dtype, path);
  return entry;
}

}  // namespace detail

/// Reads the JSON text of a header.
/// @param path  for error messages.
/// @throws CorruptError
[[nodiscard]] inline SafetensorsHeader read_safetensors_header(std::string_view text,
                                                               std::string const& path) {
  SafetensorsHeader header;
  for (detail::JsonMember const& member : detail::StrictJson::parse(text, path).members) {
    if (member.text || member.is_list) {
      detail::refuse_entry(path, member.name, "something that is no object");
    }
    if (member.name != "__metadata__") {
      header.tensors.push_back(detail::read_safetensors_entry(member, path));
      continue;
    }
    for (detail::JsonMember const& item : member.members) {
      if (!item.text) {
        detail::refuse_entry(path, item.name, "metadata that is no string");
      }
      header.metadata.emplace_back(item.name, *item.text);
    }
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](auto const& a, auto const& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t end = 0;
  for (SafetensorsEntry const& entry : header.tensors) {
    if (entry.begin != end) {
      detail::refuse_entry(path, entry.name,
                           "that its data starts at byte " + std::to_string(entry.begin) +
                               ", where the data before it ends at " + std::to_string(end));
    }
    end = entry.end;
  }
  return header;
}

namespace detail {

[[nodiscard]] inline Shape to_shape(std::vector<std::uint64_t> const& numbers) {
  Shape shape;
  for (std::uint64_t const number : numbers) {
    shape.push_back(static_cast<index_t>(number));
  }
  return shape;
}

}  // namespace detail

/// The part of DCP's sharded variant that says where each tensor of a file lies in its global
/// tensor: the JSON text of the metadata key "DCP_SHARDING_INFO", read as (name, offsets) pairs.
[[nodiscard]] inline std::vector<std::pair<std::string, Shape>> read_dcp_sharding_info(
    std::string_view text, std::string const& path) {
  std::vector<std::pair<std::string, Shape>> found;
  for (detail::JsonMember const& member : detail::StrictJson::parse(text, path).members) {
    if (member.members.size() != 1 || member.members[0].name != "saved_offsets" ||
        !member.members[0].is_list || member.members[0].numbers.size() > max_rank) {
      detail::refuse_entry(path, member.name,
                           "in DCP_SHARDING_INFO something else than saved_offsets");
    }
    found.emplace_back(member.name, detail::to_shape(member.members[0].numbers));
  }
  return found;
}

/// The JSON text of the metadata key `shapes_key`, read as (name, global shape) pairs.
[[nodiscard]] inline std::vector<std::pair<std::string, Shape>> read_shapes(
    std::string_view text, std::string const& path) {
  std::vector<std::pair<std::string, Shape>> found;
  for (detail::JsonMember const& member : detail::StrictJson::parse(text, path).members) {
    if (!member.is_list || member.numbers.size() > max_rank) {
      detail::refuse_entry(path, member.name,
                           "in " + std::string(shapes_key) + " something else than a shape");
    }
    found.emplace_back(member.name, detail::to_shape(member.numbers));
  }
  return found;
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
