// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/manifest.hpp.

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/format/file_name.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/state/checksum.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Manifests above this size are refused.
inline constexpr std::uint64_t most_manifest_bytes = std::uint64_t{1} << 28;

SHARDMESH_INLINE std::string hex32(std::uint32_t value) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text(8, '0');
  for (std::size_t i = 0; i < 8; ++i) {
    text[7 - i] = digits[(value >> (4 * i)) & 15U];
  }
  return text;
}

[[nodiscard]] inline std::string digest_line(FileDigest const& one) {
  return hex32(one.crc) + " " + std::to_string(one.bytes) + " " + one.name + "\n";
}

/// The line's parts, if it is exactly what `digest_line` writes.
[[nodiscard]] inline std::optional<FileDigest> read_digest_line(std::string_view line) {
  FileDigest one;
  std::size_t const space = line.find(' ', 9);
  if (line.size() < 12 || space == line.npos || space > 28) {
    return std::nullopt;
  }
  for (char const digit : line.substr(0, 8)) {
    std::size_t const value = std::string_view("0123456789abcdef").find(digit);
    if (value == std::string_view::npos) {
      return std::nullopt;
    }
    one.crc = (one.crc << 4) | static_cast<std::uint32_t>(value);
  }
  for (char const digit : line.substr(9, space - 9)) {
    if (digit < '0' || digit > '9') {
      return std::nullopt;
    }
    one.bytes = 10 * one.bytes + static_cast<std::uint64_t>(digit - '0');
  }
  one.name = std::string(line.substr(space + 1, line.size() - space - 2));
  return digest_line(one) == line ? std::optional(one) : std::nullopt;
}

[[nodiscard]] inline std::string item_line(ItemDigest const& one) {
  return concat(' ', hex32(one.crc), ' ', std::to_string(one.offset), '\n');
}

/// The line's parts, if it is exactly what `item_line` writes.
[[nodiscard]] inline std::optional<ItemDigest> read_item_line(std::string_view line) {
  ItemDigest one;
  char const* const begin = line.data();
  char const* const end = begin + line.size();
  if (line.size() < 12) {
    return std::nullopt;
  }
  std::from_chars(begin + 1, begin + 9, one.crc, 16);
  std::from_chars(begin + 10, end, one.offset);
  return item_line(one) == line ? std::optional(one) : std::nullopt;
}

SHARDMESH_INLINE std::string digest_lines(FileDigest const& one) {
  std::string text = digest_line(one);
  for (ItemDigest const& item : one.items) {
    text += item_line(item);
  }
  return text;
}

/// Takes a line of items for the last of some files.
/// @returns false if it is none.
[[nodiscard]] inline bool take_item_line(std::string_view line, std::vector<FileDigest>& files) {
  auto const item = read_item_line(line);
  if (!item || files.empty()) {
    return false;
  }
  auto& items = files.back().items;
  if (item->offset >= files.back().bytes ||
      (!items.empty() && items.back().offset >= item->offset)) {
    return false;
  }
  items.push_back(*item);
  return true;
}

SHARDMESH_INLINE std::optional<FileDigest> read_digest_lines(std::string_view text) {
  std::vector<FileDigest> files;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const end = std::min(text.find('\n', at), text.size() - 1) + 1;
    std::string_view const line = text.substr(at, end - at);
    auto one = files.empty() ? read_digest_line(line) : std::nullopt;
    if (one) {
      files.push_back(std::move(*one));
    } else if (!take_item_line(line, files)) {
      return std::nullopt;
    }
    at = end;
  }
  return files.empty() ? std::nullopt : std::optional(std::move(files.front()));
}

}  // namespace detail

SHARDMESH_INLINE std::string write_manifest(std::vector<FileDigest> const& files) {
  std::string text;
  for (FileDigest const& one : files) {
    text += detail::digest_lines(one);
  }
  return text + detail::digest_line({std::string(manifest_name), text.size(),
                                     format::crc32_of(format::as_bytes(text))});
}

SHARDMESH_INLINE std::vector<FileDigest> read_manifest(std::string_view text,
                                                       std::string const& path) {
  std::vector<FileDigest> files;
  // A line has at least 12 characters: a file of empty ones asks for no table.
  files.reserve(std::min(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')),
                         text.size() / 12));
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const end = std::min(text.find('\n', at), text.size() - 1) + 1;
    if (text[at] == ' ' && detail::take_item_line(text.substr(at, end - at), files)) {
      at = end;
      continue;
    }
    auto const one = detail::read_digest_line(text.substr(at, end - at));
    bool const is_last = end == text.size();
    if (!one || !format::is_plain_file_name(one->name) || is_last != (one->name == manifest_name) ||
        (is_last && (one->bytes != at ||
                     one->crc != format::crc32_of(format::as_bytes(text.substr(0, at)))))) {
      break;
    }
    if (is_last) {
      return files;
    }
    files.push_back(*one);
    at = end;
  }
  throw CorruptError(
      path, 0,
      "shardmesh: " + path +
          " is damaged, or was cut off: its lines and its last line's CRC do not fit");
}

SHARDMESH_INLINE std::string manifest_mark(std::vector<FileDigest> const& files) {
  std::string lines;
  for (FileDigest const& one : files) {
    lines += one.name == ".metadata" ? std::string() : detail::digest_line(one);
  }
  format::ByteSpan const bytes = format::as_bytes(lines);
  std::string mark;
  for (std::uint64_t const seed : {std::uint64_t{1}, std::uint64_t{2}}) {
    std::uint64_t const half = detail::hash_bytes(seed, bytes.data(), bytes.size());
    mark += detail::hex32(static_cast<std::uint32_t>(half >> 32)) +
            detail::hex32(static_cast<std::uint32_t>(half));
  }
  return mark;
}

SHARDMESH_INLINE bool is_manifest_of(std::vector<FileDigest> const& manifest,
                                     format::ByteSpan metadata) {
  constexpr int most_flipped = 16;
  std::string const mark = manifest_mark(manifest);
  std::string_view const text = format::as_text(metadata);
  if (text.find(mark) != text.npos) {
    return true;
  }
  for (std::size_t at = 0; at + mark.size() <= text.size(); ++at) {
    int flipped = 0;
    for (std::size_t i = 0; i < mark.size() && flipped <= most_flipped; ++i) {
      flipped += std::popcount(static_cast<unsigned char>(mark[i] ^ text[at + i]));
    }
    if (flipped <= most_flipped) {
      return true;
    }
  }
  return false;
}

SHARDMESH_INLINE std::optional<std::vector<FileDigest>> find_manifest(Directory const& directory) {
  std::string const name(manifest_name);
  if (!directory.has(name)) {
    return std::nullopt;
  }
  File const file = directory.open_file(name);
  if (file.size() > detail::most_manifest_bytes) {
    throw CorruptError(file.path(), 0,
                       "shardmesh: " + file.path() + " is too large for a manifest");
  }
  format::Bytes const text = file.read(0, file.size());
  return read_manifest(format::as_text(text), file.path());
}
SHARDMESH_INLINE std::optional<std::vector<FileDigest>> find_manifest(
    std::string const& directory) {
  return find_manifest(Directory::open(directory));
}

SHARDMESH_INLINE std::string digest_fault(Directory const& directory, FileDigest const& one) {
  std::string const path = directory.path_of(one.name);
  File const file = directory.open_file(one.name);
  if (file.size() != one.bytes) {
    return path + " has " + std::to_string(file.size()) + " bytes, " + std::string(manifest_name) +
           " says " + std::to_string(one.bytes);
  }
  std::uint32_t crc = 0;
  constexpr std::uint64_t step = std::uint64_t{1} << 23;
  for (std::uint64_t at = 0; at < one.bytes; at += step) {
    crc = format::crc32_of(file.read(at, std::min(step, one.bytes - at)), crc);
  }
  return crc == one.crc ? std::string()
                        : path + " has the CRC " + detail::hex32(crc) + ", " +
                              std::string(manifest_name) + " says " + detail::hex32(one.crc);
}

}  // namespace v0
}  // namespace shardmesh
