// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/dcp_index.hpp.

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/dcp_index.hpp>

namespace shardmesh {
inline namespace v0 {

SHARDMESH_INLINE DcpIndex::DcpIndex(format::DcpMetadata metadata) : metadata_(std::move(metadata)) {
  index_.reserve(metadata_.entries.size());
  tensors_.reserve(metadata_.entries.size());
  for (std::size_t i = 0; i < metadata_.entries.size(); ++i) {
    index_.emplace(metadata_.entries[i].fqn, i);
    tensors_.push_back(describe_tensor(metadata_.entries[i]));
  }
}

SHARDMESH_INLINE bool DcpIndex::contains(std::string const& key) const {
  return index_.count(key) > 0;
}

SHARDMESH_INLINE std::vector<std::string> DcpIndex::keys() const {
  std::vector<std::string> names;
  for (format::MetadataEntry const& entry : metadata_.entries) {
    names.push_back(entry.fqn);
  }
  return names;
}

SHARDMESH_INLINE std::vector<PathElement> const& DcpIndex::path(std::string const& key) const {
  return metadata_.entries[index_.at(key)].path;
}

SHARDMESH_INLINE StoredTensor const* DcpIndex::tensor(std::string const& key) const {
  auto const found = index_.find(key);
  return found != index_.end() && metadata_.entries[found->second].tensor() != nullptr
             ? &tensors_[found->second]
             : nullptr;
}

SHARDMESH_INLINE format::StorageInfo const& DcpIndex::place(std::string const& key,
                                                            std::size_t i) const {
  return *metadata_.entries[index_.at(key)].tensor()->chunks[i].storage;
}

SHARDMESH_INLINE format::StorageInfo const& DcpIndex::place(std::string const& key) const {
  return metadata_.entries[index_.at(key)].bytes()->storage;
}

SHARDMESH_INLINE StoredTensor DcpIndex::describe_tensor(format::MetadataEntry const& entry) {
  StoredTensor tensor;
  if (format::TensorMetadata const* const said = entry.tensor()) {
    tensor.dtype = said->dtype;
    tensor.unsupported = said->unsupported;
    tensor.shape = said->size;
    tensor.boxes.reserve(said->chunks.size());
    for (format::ChunkMetadata const& chunk : said->chunks) {
      tensor.boxes.push_back({chunk.offsets, chunk.sizes});
    }
  }
  return tensor;
}

}  // namespace v0
}  // namespace shardmesh
