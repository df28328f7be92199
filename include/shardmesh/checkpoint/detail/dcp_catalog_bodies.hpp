// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/dcp_catalog.hpp.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/dcp_index.hpp>
#include <shardmesh/checkpoint/detail/sample.hpp>
#include <shardmesh/checkpoint/detail/stored_item.hpp>
#include <shardmesh/checkpoint/detail/stored_run.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_reader.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/open_files.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// @throws CorruptError if the manifest of the same save has another CRC for `.metadata`.
inline void refuse_damaged_metadata(std::vector<FileDigest> const& manifest,
                                    format::ByteSpan metadata,
                                    std::string const& path) {
  for (FileDigest const& one : manifest) {
    if (one.name == ".metadata" && one.crc != format::crc32_of(metadata)) {
      throw CorruptError(path, 0,
                         "shardmesh::load: " + path + " is damaged: its CRC is " +
                             hex32(format::crc32_of(metadata)) + ", " + std::string(manifest_name) +
                             " beside it says " + hex32(one.crc) +
                             ". Load another checkpoint, or a copy; if a program has rewritten it "
                             "on purpose, remove " +
                             std::string(manifest_name));
    }
  }
}

[[nodiscard]] inline File open_metadata(Directory const& directory) {
  if (!directory.has(".metadata")) {
    throw IoError(directory.path(), ENOENT,
                  "shardmesh::load: " + directory.path() +
                      " is no checkpoint: it has no .metadata. Either the save was interrupted, "
                      "or it is another format (for safetensors include "
                      "<shardmesh/checkpoint/load_any.hpp> and call load_any)");
  }
  return directory.open_file(".metadata");
}

[[nodiscard]] inline DcpDescription read_description(Directory const& directory) {
  File const file = open_metadata(directory);
  if (file.size() > format::most_metadata_bytes) {
    throw CorruptError(file.path(), 0,
                       "shardmesh::load: " + file.path() + " has " + std::to_string(file.size()) +
                           " bytes; at most " + std::to_string(format::most_metadata_bytes) +
                           " are read");
  }
  DcpDescription said{file.read(0, file.size()), {}};
  if (auto manifest = find_manifest(directory);
      manifest && is_manifest_of(*manifest, said.metadata)) {
    refuse_damaged_metadata(*manifest, said.metadata, file.path());
    said.manifest = std::move(*manifest);
  }
  return said;
}

}  // namespace detail

template <class Blobs>
DcpCatalog<Blobs>::DcpCatalog(Directory directory, DcpDescription said)
    : directory_(std::move(directory)),
      index_(format::read_dcp_metadata(said.metadata, directory_.path_of(".metadata"))),
      has_manifest_(!said.manifest.empty()) {
  for (FileDigest& one : said.manifest) {
    digests_.emplace(one.name, std::move(one));
  }
}

template <class Blobs>
Directory DcpCatalog<Blobs>::open(std::string const& directory) {
  if (!PosixStorage::exists(directory)) {
    throw IoError(directory, ENOENT,
                  "shardmesh::load: there is no " + directory +
                      "; give the directory that was saved to");
  }
  return Directory::open(directory);
}

template <class Blobs>
DcpDescription DcpCatalog<Blobs>::describe(Directory const& directory) {
  return detail::read_in(directory, [&] { return detail::read_description(directory); });
}

template <class Blobs>
std::string DcpCatalog<Blobs>::identity() const {
  if (has_manifest_) {
    return detail::concat("the save ", manifest_end());
  }
  std::string text =
      detail::concat("files that end in ", detail::end_of_file(directory_, ".metadata"));
  for (std::string const& name : some_files()) {
    text += detail::concat(", ", detail::end_of_file(directory_, name));
  }
  return text;
}

template <class Blobs>
StoredBox DcpCatalog<Blobs>::read_box(std::string const& key, std::size_t i) {
  return detail::read_in(directory_, [&] { return read_box_now(key, i); });
}

template <class Blobs>
std::optional<detail::CheckedRun> DcpCatalog<Blobs>::open_run(std::string const& key,
                                                              std::size_t i,
                                                              Box const& part) {
  format::StorageInfo const& info = index_.place(key, i);
  StoredTensor const& tensor = *index_.tensor(key);
  if (info.length < detail::least_run_bytes || !tensor.unsupported.empty()) {
    return std::nullopt;
  }
  return detail::read_in(directory_, [&]() -> std::optional<detail::CheckedRun> {
    auto const file = open_data(info, key);
    if (holds_blobs(*file, info)) {
      return std::nullopt;
    }
    auto run =
        detail::open_stored_run(directory_, file, info, key, tensor.dtype, part, digest_of(info));
    bytes_read_ += run ? info.length : 0;
    return run;
  });
}

template <class Blobs>
std::uint64_t DcpCatalog<Blobs>::check_box(std::string const& key, std::size_t i) {
  return detail::read_in(directory_, [&] {
    format::StorageInfo const& info = index_.place(key, i);
    auto const file = open_data(info, key);
    if (!holds_blobs(*file, info)) {
      detail::check_stored_item(file->read(info.offset, info.length), file->path(), info.offset);
    }
    bytes_read_ += info.length;
    return info.length;
  });
}

template <class Blobs>
Value DcpCatalog<Blobs>::value(std::string const& key) {
  return detail::read_in(directory_, [&] {
    format::StorageInfo const& info = index_.place(key);
    auto const file = open_data(info, key);
    bytes_read_ += info.length;
    format::Bytes const archive = file->read(info.offset, info.length);
    Value read = format::read_bytes_item(archive, file->path(), info.offset);
    if (auto const expected = digest_of(info)) {
      detail::refuse_other_item(expected, format::crc32_of(archive), key, file->path(),
                                info.offset);
    }
    return read;
  });
}

template <class Blobs>
std::vector<std::string> DcpCatalog<Blobs>::files(std::string const& key) const {
  std::vector<std::string> names;
  if (StoredTensor const* const stored = tensor(key)) {
    for (std::size_t i = 0; i < stored->boxes.size(); ++i) {
      if (!stored->boxes[i].empty()) {
        names.push_back(index_.place(key, i).relative_path);
      }
    }
  } else {
    names.push_back(index_.place(key).relative_path);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

template <class Blobs>
bool DcpCatalog<Blobs>::has_checksums() const noexcept {
  return std::none_of(blobs_.begin(), blobs_.end(), [](auto const& file) { return file.second; });
}

template <class Blobs>
typename DcpCatalog<Blobs>::Opened DcpCatalog<Blobs>::read(Directory directory) {
  DcpDescription said = describe(directory);
  return {std::move(directory), std::move(said)};
}

template <class Blobs>
StoredBox DcpCatalog<Blobs>::read_box_now(std::string const& key, std::size_t i) {
  StoredTensor const& tensor = *index_.tensor(key);
  detail::refuse_unsupported(tensor, directory_.path() + ": \"" + key + "\"");
  Box const& box = tensor.boxes[i];
  format::StorageInfo const& info = index_.place(key, i);
  auto const file = open_data(info, key);
  if (holds_blobs(*file, info)) {
    StoredBox data = reader_.read_box(*file, info.offset, key, box, tensor.dtype);
    bytes_read_ += data.bytes.size();
    return data;
  }
  auto item = file->template read<HostBlock>(info.offset, info.length);
  bytes_read_ += item.size();
  return detail::read_stored_item(std::move(item), file->path(), info.offset, key, tensor.dtype,
                                  box, digest_of(info));
}

template <class Blobs>
std::optional<std::uint32_t> DcpCatalog<Blobs>::digest_of(format::StorageInfo const& info) const {
  auto const file = digests_.find(info.relative_path);
  if (file == digests_.end()) {
    return std::nullopt;
  }
  auto const& items = file->second.items;
  auto const item = std::lower_bound(
      items.begin(), items.end(), info.offset,
      [](ItemDigest const& one, std::uint64_t offset) { return one.offset < offset; });
  return item != items.end() && item->offset == info.offset ? std::optional(item->crc)
                                                            : std::nullopt;
}

template <class Blobs>
std::string DcpCatalog<Blobs>::manifest_end() const {
  constexpr std::uint64_t most = 64;
  return detail::read_in(directory_, [&] {
    File const file = directory_.open_file(std::string(manifest_name));
    std::uint64_t const count = std::min(most, file.size());
    format::Bytes const end = file.read(file.size() - count, count);
    std::string_view const text = format::as_text(end);
    std::size_t const before = text.substr(0, text.size() - 1).rfind('\n');
    return std::string(text.substr(before == text.npos ? 0 : before + 1, 8));
  });
}

template <class Blobs>
std::vector<std::string> DcpCatalog<Blobs>::some_files() const {
  constexpr std::size_t most = 4;
  std::vector<std::string> const all = keys();
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(most, all.size()); ++i) {
    auto const held = files(all[i * (all.size() - 1) / (most - 1) % all.size()]);
    names.insert(names.end(), held.begin(), held.begin() + (held.empty() ? 0 : 1));
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

template <class Blobs>
bool DcpCatalog<Blobs>::holds_blobs(File const& file, format::StorageInfo const& info) {
  auto const known = blobs_.find(info.relative_path);
  if (known != blobs_.end()) {
    return known->second;
  }
  format::Bytes const head = file.read(info.offset, 9);
  bool const is_blob = head[0] != std::byte{'P'} && head[8] == std::byte{'{'};
  blobs_.emplace(info.relative_path, is_blob);
  return is_blob;
}

template <class Blobs>
std::shared_ptr<File const> DcpCatalog<Blobs>::open_data(format::StorageInfo const& info,
                                                         std::string const& key) {
  if (!info.transforms.empty()) {
    throw UnsupportedError("shardmesh::load: \"" + key + "\" in " + directory_.path() +
                           " went through " + info.transforms.front() +
                           " when it was saved, which is not supported; save it without");
  }
  std::shared_ptr<File const> file = files_.open(directory_, info.relative_path);
  auto const said = digests_.find(info.relative_path);
  if (said != digests_.end() && said->second.bytes != file->size()) {
    throw CorruptError(file->path(), std::min(said->second.bytes, file->size()),
                       "shardmesh::load: " + file->path() + " has " + std::to_string(file->size()) +
                           " bytes, " + std::string(manifest_name) + " beside it says " +
                           std::to_string(said->second.bytes) +
                           " (truncated, or of another save?)");
  }
  return file;
}

}  // namespace v0
}  // namespace shardmesh
