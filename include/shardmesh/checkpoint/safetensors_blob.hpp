// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/safetensors_checks.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/safetensors_notes.hpp>
#include <shardmesh/checkpoint/storage/checked_run.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/layout/box.hpp>
#include <shardmesh/tensor/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// A run of a file that holds one safetensors header with its data.
struct SafetensorsBlob {
  format::SafetensorsHeader header;
  std::uint64_t data = 0;  ///< byte of the file where the data starts
  format::SafetensorsChecks checks{};
};

/// Reads and checks the header at byte `offset`.
[[nodiscard]] inline SafetensorsBlob read_safetensors_blob(File const& file, std::uint64_t offset) {
  auto const refuse = [&](std::string const& what) {
    throw CorruptError(file.path(), offset,
                       "shardmesh: " + file.path() + " is no safetensors file: " + what);
  };
  if (file.size() < offset + 8) {
    refuse("it has only " + std::to_string(file.size()) + " bytes");
  }
  std::uint64_t length = 0;
  std::memcpy(&length, file.read(offset, 8).data(), 8);
  if (length > file.size() - offset - 8) {
    refuse("its header would have " + std::to_string(length) + " bytes (truncated file?)");
  }
  if (length > format::most_safetensors_header_bytes) {
    refuse("its header has " + std::to_string(length) + " bytes; the format allows " +
           std::to_string(format::most_safetensors_header_bytes));
  }
  format::Bytes const head = file.read(offset, 8 + length);
  SafetensorsBlob blob{
      format::read_safetensors_header(format::as_text(head).substr(8), file.path()),
      offset + 8 + length};
  blob.checks = format::read_checks(blob.header, head, file.path());
  if (blob.header.data_bytes() > file.size() - blob.data) {
    refuse("its header promises " + std::to_string(blob.header.data_bytes()) +
           " bytes of data, there are " + std::to_string(file.size() - blob.data) +
           " (truncated file?)");
  }
  return blob;
}

/// Can bytes [first, first + count) of a tensor be read and checked as a run: are they many, and whole MiB where there
/// are checksums?
[[nodiscard]] inline bool is_run(SafetensorsBlob const& blob,
                                 std::size_t number,
                                 std::uint64_t first,
                                 std::uint64_t count) {
  format::SafetensorsEntry const& entry = blob.header.tensors[number];
  constexpr std::uint64_t step = format::check_bytes;
  std::uint64_t const end = first + count;
  bool const is_whole = first % step == 0 && (end % step == 0 || end == entry.end - entry.begin);
  return count >= step && entry.unsupported.empty() && (is_whole || !blob.checks.there());
}

/// Begins to read them.
/// @param blob  must outlive the run.
[[nodiscard]] inline CheckedRun open_run(Directory const& directory,
                                         std::shared_ptr<File const> file,
                                         SafetensorsBlob const& blob,
                                         std::size_t number,
                                         std::uint64_t first,
                                         std::uint64_t count) {
  constexpr std::uint64_t step = format::check_bytes;
  format::SafetensorsEntry const& entry = blob.header.tensors[number];
  std::uint64_t const place = blob.data + entry.begin + first;
  CheckedRun::Check check;
  if (blob.checks.there()) {
    std::size_t const next = blob.checks.first[number] + static_cast<std::size_t>(first / step);
    check = [&blob, &entry, next, place, count, path = file->path()](std::uint64_t at,
                                                                     std::uint32_t crc) {
      format::refuse_other_check(blob.checks, next + static_cast<std::size_t>(at), crc, entry.name,
                                 path, place + at * format::check_bytes,
                                 std::min(format::check_bytes, count - at * format::check_bytes));
    };
  }
  return {directory, std::move(file), place, count, step, std::move(check)};
}

/// Reads parts of tensors, and checks them as far as there are checksums. Those are for whole MiB, so that more
/// than a part may have to be read; it is kept for the next part, which mostly lies beside it.
class CheckedReader {
 public:
  /// `count` bytes of a tensor from `first` on.
  /// @param number  of the tensor in the header.
  /// @returns what was read, and where the first byte is in it.
  [[nodiscard]] std::pair<HostBlock, std::size_t> read(File const& file,
                                                       SafetensorsBlob const& blob,
                                                       std::size_t number,
                                                       std::uint64_t first,
                                                       std::uint64_t count) {
    format::SafetensorsEntry const& entry = blob.header.tensors[number];
    if (!blob.checks.there() || count == 0) {
      bytes_read_ += count;
      return {file.read<HostBlock>(blob.data + entry.begin + first, count), 0};
    }
    constexpr std::uint64_t step = format::check_bytes;
    std::uint64_t const begin = first / step * step;
    std::uint64_t const end =
        std::min((first + count + step - 1) / step * step, entry.end - entry.begin);
    std::uint64_t const place = blob.data + entry.begin + begin;
    if (path_ == file.path() && place_ <= place && place - place_ + (end - begin) <= kept_.size()) {
      return {HostBlock::copy_of(
                  kept_.span().subspan(static_cast<std::size_t>(place - place_ + (first - begin)),
                                       static_cast<std::size_t>(count))),
              0};
    }
    auto bytes = file.read<HostBlock>(place, end - begin);
    bytes_read_ += bytes.size();
    format::verify_checks(blob.checks, number, begin, bytes.span(), entry.name, file.path(), place);
    if (end - begin > count && end - begin <= 2 * step) {
      path_ = file.path();
      place_ = place;
      kept_ = HostBlock::copy_of(bytes.span());
    }
    return {std::move(bytes), static_cast<std::size_t>(first - begin)};
  }

  /// So far.
  [[nodiscard]] std::uint64_t bytes_read() const noexcept { return bytes_read_; }

 private:
  std::string path_;
  std::uint64_t place_ = 0;  // in the file, of what is kept
  HostBlock kept_;           // has been checked
  std::uint64_t bytes_read_ = 0;
};

}  // namespace detail

/// For `DcpCatalog`: reads checkpoints whose data files are safetensors blobs
/// (`SerializationFormat.SAFETENSORS`). The header of each is read once.
class SafetensorsBlobs {
 public:
  [[nodiscard]] StoredBox read_box(
      File const& file, std::uint64_t offset, std::string const& key, Box const& box, DType dtype) {
    Known const& known = open(file, offset);
    format::SafetensorsEntry const* const found = known.find(key);
    if (found == nullptr) {
      fail(file, key, "is not in the file that .metadata names");
    }
    // A second box of one tensor would have replaced the first in the file; its offsets tell.
    Shape const* const told = format::find_shape(known.offsets, key);
    if (told != nullptr && !(*told == box.offset)) {
      fail(file, key, "is another part of the tensor than .metadata says");
    }
    format::SafetensorsEntry const& entry = *found;
    if (!entry.unsupported.empty() || entry.dtype != dtype || !(entry.shape == box.extent)) {
      fail(file, key, "has another shape or dtype than .metadata says");
    }
    return {file.read<HostBlock>(known.blob.data + entry.begin, entry.end - entry.begin), 0,
            detail::byte_strides(entry.shape, size_of(entry.dtype))};
  }

 private:
  /// A header, with its tensors by name.
  struct Known {
    detail::SafetensorsBlob blob;
    std::vector<std::uint32_t> by_name;  ///< tensors of the header, sorted by name
    format::NamedShapes offsets;

    [[nodiscard]] format::SafetensorsEntry const* find(std::string_view name) const {
      auto const& tensors = blob.header.tensors;
      auto const at = std::lower_bound(
          by_name.begin(), by_name.end(), name,
          [&](std::uint32_t i, std::string_view text) { return tensors[i].name < text; });
      return at != by_name.end() && tensors[*at].name == name ? &tensors[*at] : nullptr;
    }
  };

  [[nodiscard]] Known const& open(File const& file, std::uint64_t offset) {
    auto const at = known_.find({file.path(), offset});
    if (at != known_.end()) {
      return at->second;
    }
    Known known{detail::read_safetensors_blob(file, offset), {}, {}};
    auto const& tensors = known.blob.header.tensors;
    known.by_name.resize(tensors.size());
    std::iota(known.by_name.begin(), known.by_name.end(), 0U);
    std::sort(known.by_name.begin(), known.by_name.end(),
              [&](std::uint32_t a, std::uint32_t b) { return tensors[a].name < tensors[b].name; });
    if (auto const* const info = known.blob.header.find_metadata("DCP_SHARDING_INFO")) {
      known.offsets = format::read_dcp_sharding_info(*info, file.path());
    }
    return known_.emplace(std::pair{file.path(), offset}, std::move(known)).first->second;
  }

  [[noreturn]] static void fail(File const& file, std::string const& key, char const* what) {
    throw CorruptError(file.path(), 0,
                       "shardmesh::load: " + file.path() + ": \"" + key + "\" " + what);
  }

  std::map<std::pair<std::string, std::uint64_t>, Known> known_;  ///< by file and byte
};

}  // namespace v0
}  // namespace shardmesh
