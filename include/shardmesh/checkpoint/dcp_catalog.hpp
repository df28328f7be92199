// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/dcp_index.hpp>
#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/open_files.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/layout/box.hpp>

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

/// What a checkpoint directory says of its data.
struct DcpDescription {
  format::Bytes metadata;            ///< the bytes of `.metadata`
  std::vector<FileDigest> manifest;  ///< of the same save; empty if there is none
};

namespace detail {

class CheckedRun;

}  // namespace detail

/// A checkpoint directory of `torch.distributed.checkpoint`: `.metadata` says which range of which
/// file holds each box and each value. Every byte that is read is checked against its CRC-32, and, where
/// `save` has left a manifest, every item against what the manifest says of it: items of other saves are
/// refused. All files are opened in the one directory that the path led to at first.
///
/// @tparam Blobs  reads the variant whose files are safetensors blobs.
template <class Blobs = NoBlobs>
class DcpCatalog {
 public:
  /// Reads `.metadata` and the manifest.
  /// @throws IoError if `directory` is no checkpoint, CorruptError, UnsupportedError.
  explicit DcpCatalog(std::string const& directory) : DcpCatalog(read(open(directory))) {}

  /// Takes what a directory says from whoever has read it.
  DcpCatalog(Directory directory, DcpDescription said);

  /// @throws IoError if there is no such directory.
  [[nodiscard]] static Directory open(std::string const& directory);

  /// What a directory says.
  /// @throws IoError if it is no checkpoint, CorruptError for damage.
  [[nodiscard]] static DcpDescription describe(Directory const& directory);

  [[nodiscard]] std::string const& describe() const noexcept { return directory_.path(); }
  [[nodiscard]] Directory const& directory() const noexcept { return directory_; }
  /// Tells the checkpoint from those of other saves, in words; the same for a copy. Ranks that load compare
  /// it. By the manifest, else by the ends of some files.
  [[nodiscard]] std::string identity() const;
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
  [[nodiscard]] StoredBox read_box(std::string const& key, std::size_t i);

  /// Begins to read a large box whose elements lie in its file as they do in a row-major tensor. Any thread may then
  /// read them, while this one opens others.
  /// @param part  the whole box.
  /// @returns nothing for a box that `read_box` must read.
  /// @pre, @throws  as `read_box`.
  [[nodiscard]] std::optional<detail::CheckedRun> open_run(std::string const& key,
                                                           std::size_t i,
                                                           Box const& part);

  /// Checks a box whose elements are not known, as far as they need not be: bounds and CRCs.
  /// @pre as `read_box`.
  /// @returns its bytes, as stored.
  /// @throws as `read_box`.
  std::uint64_t check_box(std::string const& key, std::size_t i);

  /// @pre contains(key), and it is no tensor.
  [[nodiscard]] Value value(std::string const& key);

  /// The files that hold a tensor or value, by name, each once.
  /// @pre contains(key).
  [[nodiscard]] std::vector<std::string> files(std::string const& key) const;

  /// Bytes of items, and of tensors in blobs, that were read.
  [[nodiscard]] std::uint64_t bytes_read() const noexcept { return bytes_read_; }

  /// False once data was read that has none: tensors in safetensors blobs.
  [[nodiscard]] bool has_checksums() const noexcept;

  /// All that `.metadata` says.
  [[nodiscard]] format::DcpMetadata const& metadata() const noexcept { return index_.metadata(); }

 private:
  using Opened = std::pair<Directory, DcpDescription>;

  [[nodiscard]] static Opened read(Directory directory);
  explicit DcpCatalog(Opened read) : DcpCatalog(std::move(read.first), std::move(read.second)) {}

  [[nodiscard]] StoredBox read_box_now(std::string const& key, std::size_t i);

  /// What the manifest says of an item; nothing if it says none.
  [[nodiscard]] std::optional<std::uint32_t> digest_of(format::StorageInfo const& info) const;

  /// The last line of the manifest, which stands for all lines.
  [[nodiscard]] std::string manifest_end() const;

  /// A few of the data files, spread over all.
  [[nodiscard]] std::vector<std::string> some_files() const;

  /// Are the tensors of a file safetensors blobs? One that is tells it of all. A blob starts with its
  /// header's length, an archive with "PK". The range of a blob's tensor says how long the tensor is,
  /// not where.
  [[nodiscard]] bool holds_blobs(File const& file, format::StorageInfo const& info);

  [[nodiscard]] std::shared_ptr<File const> open_data(format::StorageInfo const& info,
                                                      std::string const& key);

  Directory directory_;
  DcpIndex index_;
  bool has_manifest_;
  std::unordered_map<std::string, FileDigest> digests_;  ///< by file
  std::uint64_t bytes_read_ = 0;
  OpenFiles files_;
  Blobs reader_;
  std::unordered_map<std::string, bool> blobs_;  ///< by file, whether its tensors are blobs
};

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/detail/dcp_catalog_bodies.hpp>
#endif
