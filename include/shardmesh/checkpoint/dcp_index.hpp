// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include <shardmesh/checkpoint/format/dcp_metadata.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {

/// What DCP's metadata says, by key.
class DcpIndex {
 public:
  DcpIndex() = default;
  explicit DcpIndex(format::DcpMetadata metadata);

  [[nodiscard]] bool contains(std::string const& key) const;

  [[nodiscard]] std::vector<std::string> keys() const;

  /// Where a value stood in the nested state dict.
  /// @pre contains(key).
  [[nodiscard]] std::vector<PathElement> const& path(std::string const& key) const;

  /// nullptr for what is no tensor.
  [[nodiscard]] StoredTensor const* tensor(std::string const& key) const;

  /// Where box `i` of a tensor is.
  /// @pre tensor(key) != nullptr, and box i exists and has elements.
  [[nodiscard]] format::StorageInfo const& place(std::string const& key, std::size_t i) const;

  /// Where a plain value is.
  /// @pre contains(key), and it is no tensor.
  [[nodiscard]] format::StorageInfo const& place(std::string const& key) const;

  [[nodiscard]] format::DcpMetadata const& metadata() const noexcept { return metadata_; }

 private:
  [[nodiscard]] static StoredTensor describe_tensor(format::MetadataEntry const& entry);

  format::DcpMetadata metadata_;
  std::unordered_map<std::string, std::size_t> index_;
  std::vector<StoredTensor> tensors_;  ///< by entry; empty ones for plain values
};

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/detail/dcp_index_bodies.hpp>
#endif
