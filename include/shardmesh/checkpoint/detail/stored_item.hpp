// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/format/zip_reader.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/layout/box.hpp>
#include <shardmesh/memory/host_block.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Checks what can be checked of an archive whose elements are not known: that it is one, and its CRCs.
/// @param path, offset  where `item` starts, for messages.
/// @throws CorruptError
inline void check_stored_item(format::ByteSpan item,
                              std::string const& path,
                              std::uint64_t offset) {
  for (format::ZipEntry const& entry : format::read_zip(item, path, offset).entries) {
    static_cast<void>(format::zip_record(item, entry, path, offset));
  }
}

/// @param key, path, offset  of the item.
/// @throws CorruptError unless an item has the CRC that the manifest says; nothing, where none says any.
inline void refuse_other_item(std::optional<std::uint32_t> expected,
                              std::uint32_t crc,
                              std::string const& key,
                              std::string const& path,
                              std::uint64_t offset) {
  if (expected && *expected != crc) {
    throw CorruptError(
        path, offset,
        "shardmesh::load: the item of \"" + key + "\" at byte " + std::to_string(offset) + " of " +
            path +
            " is whole, but not the one that was saved with the .metadata beside it; "
            "the file is of another save, or was swapped with another: load another "
            "checkpoint, or put the files back");
  }
}

/// @param said, sizes  what an item holds.
/// @throws CorruptError unless that is what the metadata says.
inline void refuse_other_tensor(DType said,
                                Shape const& sizes,
                                std::string const& path,
                                std::uint64_t offset,
                                std::string const& key,
                                DType dtype,
                                Box const& box) {
  if (said != dtype || !(sizes == box.extent)) {
    throw CorruptError(path, offset,
                       "shardmesh::load: the item of \"" + key + "\" at byte " +
                           std::to_string(offset) + " of " + path + " holds " +
                           std::string(to_string(said)) + " " + to_string(sizes) +
                           ", .metadata says " + std::string(to_string(dtype)) + " " +
                           to_string(box.extent) + "; do the files belong to one checkpoint?");
  }
}

/// Checks the archive of a box against what the metadata says of it, and makes conjugate and negative
/// views the elements that they stand for.
/// @param path, offset  where `item` starts, for messages.
/// @param expected      its `ItemDigest::crc`, if that is known.
/// @throws CorruptError (damage, another dtype or shape, the item of another save), UnsupportedError.
[[nodiscard]] inline StoredBox read_stored_item(HostBlock item,
                                                std::string const& path,
                                                std::uint64_t offset,
                                                std::string const& key,
                                                DType dtype,
                                                Box const& box,
                                                std::optional<std::uint32_t> expected = {}) {
  format::TensorItem said;
  try {
    said = format::read_tensor_item(item.span(), path, offset);
  } catch (UnsupportedError const& error) {
    throw UnsupportedError("shardmesh::load: \"" + key + "\": " + error.what());
  }
  refuse_other_tensor(said.dtype, said.sizes, path, offset, key, dtype, box);
  auto const start = static_cast<std::size_t>(said.storage.data() - item.data());
  if (expected) {
    format::ByteSpan const all(item.span());
    std::uint32_t const head = format::crc32_of(all.first(start));
    refuse_other_item(expected, format::crc32_of(all.subspan(start + said.storage.size()), head),
                      key, path, offset);
  }
  format::resolve(said.view, dtype, item.span().subspan(start, said.storage.size()));
  return {std::move(item), start + said.first, said.strides};
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
