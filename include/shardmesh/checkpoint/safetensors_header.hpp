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
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/safetensors_dtypes.hpp>
#include <shardmesh/checkpoint/safetensors_json.hpp>
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

namespace detail {

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

/// Makes a header of the events of its text.
class HeaderJson final : public StrictJson {
 public:
  HeaderJson(std::string_view text, std::string const& path)
      : StrictJson(text, path), counts_(count_members(text)) {
    charge(counts_.outer * (sizeof(SafetensorsEntry) + sizeof(std::uint32_t)));
    header_.tensors.reserve(counts_.outer);
  }

  [[nodiscard]] SafetensorsHeader read() && {
    parse();
    auto const* const tensor =
        find_twice(header_.tensors, [](auto const& entry) -> auto const& { return entry.name; });
    auto const* const metadata =
        find_twice(header_.metadata, [](auto const& item) -> auto const& { return item.first; });
    if (tensor != nullptr || metadata != nullptr) {
      refuse_twice(tensor != nullptr ? *tensor : *metadata);
    }
    return std::move(header_);
  }

  bool null() override {
    // "__metadata__": null is what a writer without metadata may say.
    return skips() || (depth_ == 1 && in_metadata_) || StrictJson::null();
  }
  bool boolean(bool value) override { return skips() || StrictJson::boolean(value); }
  bool number_float(number_float_t value, string_t const& text) override {
    return skips() || StrictJson::number_float(value, text);
  }
  bool number_integer(number_integer_t value) override {
    return skips() || StrictJson::number_integer(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (skips()) {
      return true;
    }
    if (!in_list_ || value > static_cast<std::uint64_t>(std::numeric_limits<index_t>::max())) {
      return problem("a number out of place or range");
    }
    if (numbers_.size() == most_numbers) {
      refuse_entry(path(), name_, "a list of more than 64 numbers");
    }
    numbers_.push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (skips()) {
      return true;
    }
    if (in_list_ || depth_ == 0) {
      return problem("a string out of place");
    }
    if (has_nul(value)) {
      return problem("a string with a NUL");
    }
    if (depth_ == 1) {
      refuse_entry(path(), name_, "something that is no object");
    }
    if (in_metadata_) {
      header_.metadata.emplace_back(std::move(key_), keep(value));
      return true;
    }
    if (field_ != Field::dtype) {
      refuse_field();
    }
    dtype_ = std::move(value);
    return true;
  }
  bool start_object(std::size_t) override {
    if (skips()) {
      return ++skipped_depth_ <= most_skipped_depth || problem("an object nested too deep");
    }
    if (in_list_ || (depth_ > 1 && in_metadata_)) {
      return problem("an object nested too deep");
    }
    if (depth_ > 1) {
      refuse_field();
    }
    if (++depth_ == 2 && in_metadata_) {
      charge(counts_.inner * (sizeof(header_.metadata[0]) + sizeof(std::uint32_t)));
      header_.metadata.reserve(counts_.inner);
    }
    seen_ = 0;
    field_ = Field::dtype;
    return true;
  }
  bool key(string_t& name) override {
    if (skipped_depth_ > 0) {
      return true;
    }
    if (has_nul(name)) {
      return problem("a name with a NUL");
    }
    if (depth_ == 1) {
      bool const is_metadata = name == "__metadata__";
      if (is_metadata && has_metadata_) {
        return twice(name);
      }
      has_metadata_ = has_metadata_ || is_metadata;
      in_metadata_ = is_metadata;
      name_ = keep(name);
      return true;
    }
    if (in_metadata_) {
      key_ = keep(name);
      return true;
    }
    field_ = name == "dtype"          ? Field::dtype
             : name == "shape"        ? Field::shape
             : name == "data_offsets" ? Field::offsets
                                      : Field::other;
    if (field_ == Field::other) {  // what a later version of the format may say of a tensor
      return true;
    }
    auto const bit = 1U << static_cast<unsigned>(field_);
    if ((seen_ & bit) != 0) {
      return twice(name);
    }
    seen_ |= bit;
    return true;
  }
  bool end_object() override {
    if (skipped_depth_ > 0) {
      --skipped_depth_;
      return true;
    }
    if (--depth_ == 1 && !in_metadata_) {
      finish_entry();
    }
    return true;
  }
  bool start_array(std::size_t) override {
    if (skips()) {
      return ++skipped_depth_ <= most_skipped_depth || problem("an object nested too deep");
    }
    if (in_list_ || depth_ == 0) {
      return problem("a list out of place");
    }
    if (depth_ == 1) {
      refuse_entry(path(), name_, "something that is no object");
    }
    if (in_metadata_) {
      refuse_entry(path(), key_, "metadata that is no string");
    }
    if (field_ == Field::dtype) {
      refuse_field();
    }
    in_list_ = true;
    numbers_.clear();
    return true;
  }
  bool end_array() override {
    if (skipped_depth_ > 0) {
      --skipped_depth_;
      return true;
    }
    in_list_ = false;
    if (field_ == Field::shape) {
      shape_ = numbers_;
    } else if (numbers_.size() == 2) {
      begin_ = numbers_[0];
      end_ = numbers_[1];
    } else {
      refuse_field();
    }
    return true;
  }

 private:
  enum class Field : std::uint8_t { dtype, shape, offsets, other };
  static constexpr std::size_t most_numbers = 64;
  static constexpr int most_skipped_depth = 16;

  /// Is what comes now, or what it is in, the value of a field of a tensor that nobody knows?
  [[nodiscard]] bool skips() const noexcept {
    return skipped_depth_ > 0 ||
           (depth_ == 2 && !in_metadata_ && !in_list_ && field_ == Field::other);
  }

  [[noreturn]] void refuse_field() const {
    refuse_entry(path(), name_, "something else than dtype, shape and data_offsets");
  }

  void finish_entry() {
    if (seen_ != 7) {
      refuse_entry(path(), name_, "too little: dtype, shape and data_offsets are needed");
    }
    SafetensorsEntry entry;
    entry.name = std::move(name_);
    entry.begin = begin_;
    entry.end = end_;
    take_dtype(entry, shape_, dtype_, path());
    charge(text_bytes(entry.unsupported.size()));
    header_.tensors.push_back(std::move(entry));
  }

  JsonCounts counts_;
  SafetensorsHeader header_;
  int depth_ = 0;
  bool in_list_ = false;
  bool in_metadata_ = false;   // the object that is read, or comes next
  bool has_metadata_ = false;  // one has come
  Field field_ = Field::other;
  int skipped_depth_ = 0;  // lists and objects that are passed over
  unsigned seen_ = 0;      // fields of the tensor, as bits
  std::string name_;       // of the tensor
  std::string key_;        // in the metadata
  std::string dtype_;
  std::vector<std::uint64_t> numbers_;
  std::vector<std::uint64_t> shape_;
  std::uint64_t begin_ = 0;
  std::uint64_t end_ = 0;
};

}  // namespace detail

/// Reads the JSON text of a header.
/// @param path  for error messages.
/// @throws CorruptError
[[nodiscard]] inline SafetensorsHeader read_safetensors_header(std::string_view text,
                                                               std::string const& path) {
  SafetensorsHeader header = detail::HeaderJson(text, path).read();
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

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
