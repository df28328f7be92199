// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/core/config.hpp>

namespace shardmesh {
inline namespace v0 {

class Directory;

/// What an item, a box of a tensor or a plain value, must be.
struct ItemDigest {
  std::uint64_t offset = 0;  ///< in its file
  /// Of a plain value the CRC-32 of its archive; of a tensor that of the archive without the elements, whose
  /// own CRC-32 is in it. So whoever has checked an item knows it without reading the elements again.
  std::uint32_t crc = 0;

  [[nodiscard]] friend bool operator==(ItemDigest const&, ItemDigest const&) = default;
};

/// What a file of a checkpoint must be.
struct FileDigest {
  std::string name;  ///< beside the manifest
  std::uint64_t bytes = 0;
  std::uint32_t crc = 0;               ///< CRC-32 of all bytes
  std::vector<ItemDigest> items = {};  ///< ascending offsets; of data files

  [[nodiscard]] friend bool operator==(FileDigest const&, FileDigest const&) = default;
};

/// `save` writes a manifest beside `.metadata`; PyTorch, which opens only what `.metadata` names, does
/// not see it. It makes every flipped bit visible, also those in bytes that the format's own checksums
/// leave out. A line for each file, "<CRC-32 in hexadecimal> <bytes> <name>", after it one for each of
/// its items, " <CRC-32> <offset>"; the last line is for the lines before. By the items `load` sees data of
/// another save.
///
/// PyTorch leaves the manifest where it is when it saves over the directory. So that it is not taken for
/// that save's, `.metadata` of the save that it belongs to holds the `manifest_mark`.
inline constexpr std::string_view manifest_name = ".shardmesh";

namespace detail {

[[nodiscard]] SHARDMESH_INLINE std::string hex32(std::uint32_t value);

/// The lines of a file and its items.
[[nodiscard]] SHARDMESH_INLINE std::string digest_lines(FileDigest const& one);

/// Reads what `digest_lines` wrote for one file; nothing of what it did not write.
[[nodiscard]] SHARDMESH_INLINE std::optional<FileDigest> read_digest_lines(std::string_view text);

}  // namespace detail

/// The text of a manifest of these files.
[[nodiscard]] SHARDMESH_INLINE std::string write_manifest(std::vector<FileDigest> const& files);

/// @param path  for messages.
/// @throws CorruptError
[[nodiscard]] SHARDMESH_INLINE std::vector<FileDigest> read_manifest(std::string_view text,
                                                                     std::string const& path);

/// What `.metadata` holds of the manifest beside it: 128 bits in hexadecimal that stand for the lines of
/// all other files. Files of another save have another mark.
[[nodiscard]] SHARDMESH_INLINE std::string manifest_mark(std::vector<FileDigest> const& files);

/// Do a manifest and `.metadata` come from one save? Damage does not make strangers of them: flipped bits
/// leave the mark recognisable wherever it stands, whereas other text differs from it in some 60 of its
/// 256 bits.
[[nodiscard]] SHARDMESH_INLINE bool is_manifest_of(std::vector<FileDigest> const& manifest,
                                                   format::ByteSpan metadata);

/// The manifest of a checkpoint directory, of whatever save; nothing if it has none.
/// @throws CorruptError, IoError.
[[nodiscard]] SHARDMESH_INLINE std::optional<std::vector<FileDigest>> find_manifest(
    Directory const& directory);

[[nodiscard]] SHARDMESH_INLINE std::optional<std::vector<FileDigest>> find_manifest(
    std::string const& directory);

/// What is wrong with a file, in words; empty if it is as its digest says.
[[nodiscard]] SHARDMESH_INLINE std::string digest_fault(Directory const& directory,
                                                        FileDigest const& one);

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/detail/manifest_bodies.hpp>
#endif
