// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <shardmesh/checkpoint/detail/stored_item.hpp>
#include <shardmesh/checkpoint/format/byte_source.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/storage/checked_run.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Items below this size are read whole.
inline constexpr std::uint64_t least_run_bytes = std::uint64_t{1} << 20;

/// Reads the frame of a box's archive and checks it as `read_stored_item` does; the elements are still to be read.
/// @param place     of the item, at least `least_run_bytes` long.
/// @param expected  its `ItemDigest::crc`, if that is known.
/// @returns nothing for an item that must be read whole: its elements are a view, have gaps between them, or lie
///          otherwise than usual in the archive.
/// @throws as `read_stored_item`.
[[nodiscard]] inline std::optional<CheckedRun> open_stored_run(
    Directory const& directory,
    std::shared_ptr<File const> const& file,
    format::StorageInfo const& place,
    std::string const& key,
    DType dtype,
    Box const& box,
    std::optional<std::uint32_t> expected) {
  constexpr std::uint64_t end_bytes = 4096;  // of frames that PyTorch and we write
  format::Bytes const head = file->read(place.offset, end_bytes);
  format::Bytes const tail = file->read(place.offset + place.length - end_bytes, end_bytes);
  format::EndsSource const item(head, tail, place.length, file->path(), place.offset);
  try {
    format::TensorFrame const frame = format::read_tensor_frame(item);
    format::TensorPickle const& said = frame.said;
    format::ZipEntry const& data = frame.data;
    refuse_other_tensor(said.dtype, said.sizes, file->path(), place.offset, key, dtype, box);
    bool const is_plain =
        said.view == format::LazyView{} && said.storage_offset == 0 &&
        said.strides == row_major_strides(said.sizes) &&
        said.storage_bytes == static_cast<std::uint64_t>(box.volume()) * size_of(dtype);
    if (!is_plain) {
      return std::nullopt;
    }
    if (expected) {
      std::uint64_t const end = data.offset + data.size;
      std::uint32_t const before =
          format::crc32_of(item.read(0, static_cast<std::size_t>(data.offset)));
      format::ByteSpan const behind = item.read(end, static_cast<std::size_t>(place.length - end));
      refuse_other_item(expected, format::crc32_of(behind, before), key, file->path(),
                        place.offset);
    }
    return CheckedRun(
        directory, file, place.offset + data.offset, data.size, data.size,
        [data, path = file->path(), place = place.offset](std::uint64_t, std::uint32_t crc) {
          format::detail::refuse_other_crc(format::SpanSource({}, path, place), data, crc);
        });
  } catch (format::EndsSource::NotHere) {
    return std::nullopt;
  } catch (UnsupportedError const& error) {
    throw UnsupportedError("shardmesh::load: \"" + key + "\": " + error.what());
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
