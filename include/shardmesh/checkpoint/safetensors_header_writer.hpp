// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The first bytes of a safetensors file: the length of the header, and the header as JSON. The time
// is linear in the number of tensors, of which large models have hundreds of thousands.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/safetensors_checks.hpp>
#include <shardmesh/checkpoint/safetensors_dtypes.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

namespace detail {

[[nodiscard]] inline std::string json_string(std::string const& text) {
  return nlohmann::json(text).dump();
}

/// Not by a json array: those of nlohmann allocate in their destructor, and end the program where that fails.
[[nodiscard]] inline std::string json_list(Shape const& shape) {
  std::string text;
  for (index_t const extent : shape) {
    text += shardmesh::detail::concat(text.empty() ? "" : ",", std::to_string(extent));
  }
  return shardmesh::detail::concat('[', text, ']');
}

/// What stands for a tensor in a header.
/// @throws InvalidArgument for a name that could be written but not read again, UnsupportedError for a
///         dtype that the format has not.
[[nodiscard]] inline std::string json_member(SafetensorsEntry const& entry) {
  if (!is_utf8(entry.name) || entry.name.find('\0') != std::string::npos ||
      entry.name == "__metadata__") {
    throw InvalidArgument("shardmesh: \"" + escaped(entry.name) +
                          "\" cannot name a tensor of a safetensors file: names are UTF-8 without "
                          "NUL, not __metadata__, and stand once; rename it");
  }
  SafetensorsDtype const* const dtype = find_safetensors_dtype(entry.dtype);
  if (dtype == nullptr) {
    throw UnsupportedError("shardmesh: \"" + entry.name + "\" is " +
                           std::string(to_string(entry.dtype)) +
                           ", which safetensors files cannot hold");
  }
  if (entry.shape.empty() && dtype->packed > 1) {
    throw UnsupportedError("shardmesh: \"" + entry.name + "\" is a single element of " +
                           std::string(to_string(entry.dtype)) +
                           ", and safetensors files count the numbers in it; give it a dimension");
  }
  return shardmesh::detail::concat(json_string(entry.name), ":{\"dtype\":\"", dtype->name,
                                   "\",\"shape\":", json_list(shape_in_file(*dtype, entry.shape)),
                                   ",\"data_offsets\":[", std::to_string(entry.begin), ',',
                                   std::to_string(entry.end), "]}");
}

[[nodiscard]] inline std::string json_metadata(
    std::vector<std::pair<std::string, std::string>> const& metadata) {
  std::string text;
  for (auto const& [name, value] : metadata) {
    if (!is_utf8(name + value) || (name + value).find('\0') != std::string::npos) {
      throw InvalidArgument("shardmesh: the metadata \"" + escaped(name) +
                            "\" of a safetensors file is not UTF-8 without NUL");
    }
    text += shardmesh::detail::concat(text.empty() ? "\"__metadata__\":{" : ",", json_string(name),
                                      ':', json_string(value));
  }
  return text.empty() ? text : text + "}";
}

}  // namespace detail

/// The header of a file while its tensors are chosen: it grows by one after the other, and never over
/// the size that readers accept.
class SafetensorsHeaderText {
 public:
  /// @param most  bytes of the header; only tests have another limit than the format's.
  explicit SafetensorsHeaderText(std::uint64_t most = most_safetensors_header_bytes)
      : most_(most) {}

  /// Adds a tensor, behind the others; fills in where its data begins and ends.
  /// @param metadata  bytes that it adds to the metadata.
  /// @returns false, and adds nothing, if the header would become too large.
  /// @throws InvalidArgument (its name), UnsupportedError (its dtype).
  [[nodiscard]] bool add(SafetensorsEntry& entry, std::uint64_t metadata = 0) {
    entry.begin = end_;
    entry.end = end_ + static_cast<std::uint64_t>(volume(entry.shape)) * size_of(entry.dtype);
    std::string const member = detail::json_member(entry);
    std::uint64_t const reserved = reserved_ + metadata;
    std::uint64_t const commas = (reserved > 0 ? 1U : 0U) + (members_.empty() ? 0U : 1U);
    if (padded(2 + reserved + members_.size() + member.size() + commas) > most_) {
      return false;
    }
    end_ = entry.end;
    reserved_ = reserved;
    members_ += (members_.empty() ? "" : ",") + member;
    return true;
  }

  /// Keeps room for metadata.
  void reserve(std::uint64_t bytes) noexcept { reserved_ += bytes; }

  /// Bytes of the tensors so far.
  [[nodiscard]] std::uint64_t data_bytes() const noexcept { return end_; }

  /// The first bytes of the file: length, JSON, spaces up to a multiple of 8.
  /// @throws InvalidArgument for metadata that no reader would accept; UnsupportedError if it is more
  ///         than there is room for.
  [[nodiscard]] Bytes finish(
      std::vector<std::pair<std::string, std::string>> const& metadata) const {
    std::string text = shardmesh::detail::concat('{', detail::json_metadata(metadata));
    text +=
        shardmesh::detail::concat(text.size() > 1 && !members_.empty() ? "," : "", members_, '}');
    bool const has_checks = std::any_of(metadata.begin(), metadata.end(),
                                        [](auto const& one) { return one.first == checks_key; });
    text.resize(padded(text.size()) + (has_checks ? check_spaces : 0), ' ');
    if (text.size() > most_) {
      throw UnsupportedError(
          "shardmesh: the metadata of a safetensors file would make its header " +
          std::to_string(text.size()) + " bytes long; readers accept " + std::to_string(most_));
    }
    Bytes bytes(8 + text.size());
    auto const size = static_cast<std::uint64_t>(text.size());
    std::memcpy(bytes.data(), &size, 8);
    std::memcpy(bytes.data() + 8, text.data(), text.size());
    return bytes;
  }

 private:
  [[nodiscard]] static std::size_t padded(std::size_t size) { return (size + 7) / 8 * 8; }

  std::uint64_t most_;
  std::uint64_t reserved_ = 0;
  std::uint64_t end_ = 0;
  std::string members_;
};

/// What to say where one more tensor would make a header too large.
/// @param file  for the message.
[[noreturn]] inline void throw_large_header(std::string const& file,
                                            std::string const& tensor,
                                            std::size_t number,
                                            std::uint64_t most) {
  throw UnsupportedError(
      "shardmesh: the safetensors header of " + file + " would be longer than " +
      std::to_string(most) + " bytes, which no reader accepts, from its tensor " +
      std::to_string(number + 1) + " on (\"" + escaped(tensor) +
      "\"); save it as several files (save_safetensors_sharded, or the tool's convert --to hf), or "
      "give shorter names");
}

/// The first bytes of a safetensors file. `begin` and `end` of the entries are filled here, in the given
/// order.
/// @param file  for error messages.
/// @param most  bytes of the header; only tests have another limit than the format's.
/// @throws UnsupportedError for complex128, which the format has not, and a header that no reader would
///         accept for its size; InvalidArgument for names and metadata that none would.
[[nodiscard]] inline Bytes write_safetensors_header(
    SafetensorsHeader& header,
    std::string const& file = "a file",
    std::uint64_t most = most_safetensors_header_bytes) {
  SafetensorsHeaderText text(most);
  text.reserve(detail::json_metadata(header.metadata).size());
  std::unordered_set<std::string_view> seen;
  for (SafetensorsEntry& entry : header.tensors) {
    if (!seen.insert(entry.name).second) {
      throw InvalidArgument("shardmesh: \"" + escaped(entry.name) +
                            "\" cannot name a tensor of a safetensors file: a name stands once; "
                            "rename one of the two");
    }
    if (!text.add(entry)) {
      throw_large_header(file, entry.name, static_cast<std::size_t>(&entry - header.tensors.data()),
                         most);
    }
  }
  return text.finish(header.metadata);
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
