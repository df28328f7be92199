// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/dcp_index.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_reader.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/storage/open_files.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/stored.hpp>

namespace shardmesh {
inline namespace v0 {

/// Stands where a reader of safetensors blobs may stand: refuses them. `SafetensorsBlobs` reads them.
struct NoBlobs {
  [[nodiscard]] static StoredBox read_box(
      File const& file, std::uint64_t, std::string const& key, Box const&, DType) {
    throw UnsupportedError("shardmesh::load: \"" + key + "\" lies in a safetensors blob (" +
                           file.path() +
                           "); include <shardmesh/checkpoint/load_any.hpp> and call load_any");
  }
};

/// A checkpoint directory of `torch.distributed.checkpoint`: `.metadata` says which range of which
/// file holds each box and each value. Every byte that is read is checked against its CRC-32.
///
/// @tparam Blobs  reads the variant whose files are safetensors blobs.
template <class Blobs = NoBlobs>
class DcpCatalog {
 public:
  /// Reads `.metadata`.
  /// @throws IoError if `directory` is no checkpoint, CorruptError, UnsupportedError.
  explicit DcpCatalog(std::string directory) : DcpCatalog(directory, read_metadata(directory)) {}

  /// Takes the bytes of `.metadata` from whoever has read them.
  DcpCatalog(std::string directory, format::ByteSpan metadata)
      : directory_(std::move(directory)),
        index_(format::read_dcp_metadata(metadata, directory_ + "/.metadata")) {}

  /// The bytes of `.metadata`.
  /// @throws IoError if `directory` is no checkpoint, CorruptError if there are too many.
  [[nodiscard]] static format::Bytes read_metadata(std::string const& directory) {
    File const file = open_metadata(directory);
    if (file.size() > format::most_metadata_bytes) {
      throw CorruptError(file.path(), 0,
                         "shardmesh::load: " + file.path() + " has " + std::to_string(file.size()) +
                             " bytes; at most " + std::to_string(format::most_metadata_bytes) +
                             " are read");
    }
    format::Bytes bytes = file.read(0, file.size());
    if (auto const manifest = find_manifest(directory);
        manifest && is_manifest_of(*manifest, bytes)) {
      for (FileDigest const& one : *manifest) {
        if (one.name == ".metadata" && one.crc != format::crc32_of(bytes)) {
          throw CorruptError(
              file.path(), 0,
              "shardmesh::load: " + file.path() + " is damaged: its CRC is " +
                  detail::hex32(format::crc32_of(bytes)) + ", " + std::string(manifest_name) +
                  " beside it says " + detail::hex32(one.crc) +
                  ". Load another checkpoint, or a copy; if a program has rewritten it on purpose, "
                  "remove " +
                  std::string(manifest_name));
        }
      }
    }
    return bytes;
  }

  [[nodiscard]] std::string const& describe() const noexcept { return directory_; }
  [[nodiscard]] bool contains(std::string const& key) const { return index_.contains(key); }
  [[nodiscard]] std::vector<std::string> keys() const { return index_.keys(); }
  [[nodiscard]] StoredTensor const* tensor(std::string const& key) const {
    return index_.tensor(key);
  }
  [[nodiscard]] std::vector<PathElement> const& path(std::string const& key) const {
    return index_.path(key);
  }

  /// @pre tensor(key) != nullptr, and box i exists and has elements.
  /// @throws CorruptError, IoError, UnsupportedError.
  [[nodiscard]] StoredBox read_box(std::string const& key, std::size_t i) {
    StoredTensor const& tensor = *index_.tensor(key);
    detail::refuse_unsupported(tensor, directory_ + ": \"" + key + "\"");
    Box const& box = tensor.boxes[i];
    format::StorageInfo const& info = index_.place(key, i);
    File const& file = open_data(info, key);
    if (holds_blobs(file, info)) {
      StoredBox data = reader_.read_box(file, info.offset, key, box, tensor.dtype);
      bytes_read_ += data.bytes.size();
      return data;
    }
    format::Bytes item = file.read(info.offset, info.length);
    bytes_read_ += item.size();
    return detail::read_stored_item(std::move(item), file.path(), info.offset, key, tensor.dtype,
                                    box);
  }

  /// Checks a box whose elements are not known, as far as they need not be: bounds and CRCs.
  /// @pre as `read_box`.
  /// @returns its bytes, as stored.
  /// @throws as `read_box`.
  std::uint64_t check_box(std::string const& key, std::size_t i) {
    format::StorageInfo const& info = index_.place(key, i);
    File const& file = open_data(info, key);
    if (!holds_blobs(file, info)) {
      detail::check_stored_item(file.read(info.offset, info.length), file.path(), info.offset);
    }
    bytes_read_ += info.length;
    return info.length;
  }

  /// @pre contains(key), and it is no tensor.
  [[nodiscard]] Value value(std::string const& key) {
    format::StorageInfo const& info = index_.place(key);
    File const& file = open_data(info, key);
    bytes_read_ += info.length;
    return format::read_bytes_item(file.read(info.offset, info.length), file.path(), info.offset);
  }

  /// The files that hold a tensor or value, by name, each once.
  /// @pre contains(key).
  [[nodiscard]] std::vector<std::string> files(std::string const& key) const {
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

  /// Bytes of items, and of tensors in blobs, that were read.
  [[nodiscard]] std::uint64_t bytes_read() const noexcept { return bytes_read_; }

  /// False once data was read that has none: tensors in safetensors blobs.
  [[nodiscard]] bool has_checksums() const noexcept {
    return std::none_of(blobs_.begin(), blobs_.end(), [](auto const& file) { return file.second; });
  }

  /// All that `.metadata` says.
  [[nodiscard]] format::DcpMetadata const& metadata() const noexcept { return index_.metadata(); }

 private:
  [[nodiscard]] static File open_metadata(std::string const& directory) {
    std::string const path = directory + "/.metadata";
    if (!PosixStorage::exists(directory)) {
      throw IoError(directory, ENOENT,
                    "shardmesh::load: there is no " + directory +
                        "; give the directory that was saved to");
    }
    if (!PosixStorage::exists(path)) {
      throw IoError(directory, ENOENT,
                    "shardmesh::load: " + directory +
                        " is no checkpoint: it has no .metadata. Either the save was interrupted, "
                        "or it is another format (for safetensors include "
                        "<shardmesh/checkpoint/load_any.hpp> and call load_any)");
    }
    return File::open(path);
  }

  /// Are the tensors of a file safetensors blobs? One that is tells it of all. A blob starts with its
  /// header's length, an archive with "PK". The range of a blob's tensor says how long the tensor is,
  /// not where.
  [[nodiscard]] bool holds_blobs(File const& file, format::StorageInfo const& info) {
    auto const known = blobs_.find(info.relative_path);
    if (known != blobs_.end()) {
      return known->second;
    }
    format::Bytes const head = file.read(info.offset, 9);
    bool const is_blob = head[0] != std::byte{'P'} && head[8] == std::byte{'{'};
    blobs_.emplace(info.relative_path, is_blob);
    return is_blob;
  }

  [[nodiscard]] File const& open_data(format::StorageInfo const& info, std::string const& key) {
    if (!info.transforms.empty()) {
      throw UnsupportedError("shardmesh::load: \"" + key + "\" in " + directory_ +
                             " went through " + info.transforms.front() +
                             " when it was saved, which is not supported; save it without");
    }
    return files_.open(directory_ + "/" + info.relative_path);
  }

  std::string directory_;
  DcpIndex index_;
  std::uint64_t bytes_read_ = 0;
  OpenFiles files_;
  Blobs reader_;
  std::unordered_map<std::string, bool> blobs_;  ///< by file, whether its tensors are blobs
};

}  // namespace v0
}  // namespace shardmesh
