// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Where an item's bytes are: a range of a data file. Ranges of different tensors coincide where a
/// file holds one safetensors blob.
struct StorageInfo {
  std::string relative_path;  ///< a plain file name, beside `.metadata`
  std::uint64_t offset = 0;   ///< bytes from the start of the file
  std::uint64_t length = 0;   ///< bytes
  /// What the bytes went through, e.g. "stream.zstd/1"; empty for stored as they are.
  std::vector<std::string> transforms;
  [[nodiscard]] friend bool operator==(StorageInfo const&, StorageInfo const&) = default;
};

/// A box of a tensor that is stored as one item.
struct ChunkMetadata {
  Shape offsets;
  Shape sizes;
  std::optional<StorageInfo> storage;  ///< always there if the chunk has elements
  [[nodiscard]] friend bool operator==(ChunkMetadata const&, ChunkMetadata const&) = default;
};

struct TensorMetadata {
  DType dtype = DType::float32;
  Shape size;
  std::vector<ChunkMetadata> chunks;  ///< disjoint, inside `size`, in no order
  /// What it has that this library has not, e.g. "unknown dtype 'torch.quint8'": it can be listed, not
  /// read, and `dtype` means nothing. Empty for a tensor that can be read.
  std::string unsupported{};
  [[nodiscard]] friend bool operator==(TensorMetadata const&, TensorMetadata const&) = default;
};

/// A value that is not a tensor: one torch.save archive.
struct BytesMetadata {
  StorageInfo storage;
  [[nodiscard]] friend bool operator==(BytesMetadata const&, BytesMetadata const&) = default;
};

/// What is stored under a name.
class MetadataValue {
 public:
  MetadataValue(TensorMetadata tensor) : value_(std::move(tensor)) {}
  MetadataValue(BytesMetadata bytes) : value_(std::move(bytes)) {}

  /// The tensor, or nullptr for bytes.
  [[nodiscard]] TensorMetadata const* tensor() const noexcept {
    return std::get_if<TensorMetadata>(&value_);
  }
  [[nodiscard]] TensorMetadata* tensor() noexcept { return std::get_if<TensorMetadata>(&value_); }
  /// The bytes, or nullptr for a tensor.
  [[nodiscard]] BytesMetadata const* bytes() const noexcept {
    return std::get_if<BytesMetadata>(&value_);
  }
  [[nodiscard]] BytesMetadata* bytes() noexcept { return std::get_if<BytesMetadata>(&value_); }
  [[nodiscard]] friend bool operator==(MetadataValue const&, MetadataValue const&) = default;

 private:
  std::variant<BytesMetadata, TensorMetadata> value_;
};

struct MetadataEntry {
  std::string fqn;
  std::vector<PathElement> path;  ///< where it stood in the nested state dict; {fqn} if unknown
  MetadataValue value;

  /// The tensor, or nullptr for bytes.
  [[nodiscard]] TensorMetadata const* tensor() const noexcept { return value.tensor(); }
  /// The bytes, or nullptr for a tensor.
  [[nodiscard]] BytesMetadata const* bytes() const noexcept { return value.bytes(); }
  [[nodiscard]] friend bool operator==(MetadataEntry const&, MetadataEntry const&) = default;
};

/// What `.metadata` of a checkpoint says.
struct DcpMetadata {
  std::vector<MetadataEntry> entries;  ///< in the order of the file
  std::optional<std::string> version;  ///< "1.0.0" since torch 2.9

  /// The entry of a name, or nullptr. Linear; whoever asks often makes an index.
  [[nodiscard]] MetadataEntry const* find(std::string_view fqn) const noexcept {
    for (MetadataEntry const& entry : entries) {
      if (entry.fqn == fqn) {
        return &entry;
      }
    }
    return nullptr;
  }
  [[nodiscard]] friend bool operator==(DcpMetadata const&, DcpMetadata const&) = default;
};

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
