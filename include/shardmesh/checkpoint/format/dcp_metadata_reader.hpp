// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/chunk_check.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata.hpp>
#include <shardmesh/checkpoint/format/file_name.hpp>
#include <shardmesh/checkpoint/format/pickle_reader.hpp>
#include <shardmesh/checkpoint/format/pickle_schema.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

namespace detail {

class DcpMetadataReader {
 public:
  DcpMetadataReader(PickleTree const& tree, std::string const& path)
      : schema_(tree, path, 0, "shardmesh::read_dcp_metadata") {}

  [[nodiscard]] DcpMetadata read() && {
    PickleRef const root = schema_.tree().root();
    // A class derived from PyTorch's is as good as its members are.
    bool const derived = schema_.tree().is(root, PickleKind::object, PickleGlobal::inert);
    auto const [entries, planner, storage, version] = schema_.members<4>(
        root, derived ? PickleGlobal::inert : PickleGlobal::metadata,
        {"state_dict_metadata", "planner_data", "storage_data", "version"}, "the metadata");
    read_entries(entries);
    read_paths(planner);
    read_storage(storage);
    check_storage(root);
    if (!schema_.is_none(version)) {
      metadata_.version = std::string(schema_.text(version, "version"));
    }
    return std::move(metadata_);
  }

 private:
  [[nodiscard]] std::string_view name(PickleRef ref) const {
    std::string_view const fqn = schema_.text(ref, "the name of an entry");
    if (fqn.size() > 65536 || fqn.find('\0') != std::string_view::npos) {
      schema_.fail(ref, "the name \"" + escaped(fqn) + "\" is too long or holds a NUL");
    }
    return fqn;
  }

  void read_entries(PickleRef dict) {
    auto const pairs = schema_.items(dict, PickleKind::dict, "state_dict_metadata");
    metadata_.entries.reserve(pairs.size() / 2);
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      std::string_view const fqn = name(pairs[i]);
      if (!index_.emplace(fqn, metadata_.entries.size()).second) {
        schema_.fail(pairs[i], "\"" + escaped(fqn) + "\" stands twice in state_dict_metadata");
      }
      schema_.charge(pairs[i], sizeof(MetadataEntry) + 2 * fqn.size());
      MetadataEntry entry{std::string(fqn), {}, BytesMetadata{}};
      if (!schema_.tree().is(pairs[i + 1], PickleKind::object,
                             PickleGlobal::bytes_storage_metadata)) {
        entry.value = read_tensor(fqn, pairs[i + 1]);
      }
      order_.push_back(offset_order(entry, pairs[i]));
      metadata_.entries.push_back(std::move(entry));
    }
    stored_bytes_.resize(metadata_.entries.size(), false);
  }

  [[nodiscard]] TensorMetadata read_tensor(std::string_view fqn, PickleRef ref) {
    auto const [properties, size, chunks] = schema_.members<3>(
        ref, PickleGlobal::tensor_storage_metadata, {"properties", "size", "chunks"}, "an entry");
    TensorMetadata tensor;
    read_properties(fqn, properties, tensor);
    if (schema_.rank_of(size) > max_rank) {
      tensor.unsupported = std::to_string(schema_.rank_of(size)) + " dimensions; at most " +
                           std::to_string(max_rank) + " are supported";
      return tensor;
    }
    tensor.size = schema_.torch_size(size, "the size of a tensor");
    auto const list = schema_.items(chunks, PickleKind::list, "the chunks of a tensor");
    schema_.charge(ref, list.size() * sizeof(ChunkMetadata));
    tensor.chunks.reserve(list.size());
    for (PickleRef const item : list) {
      auto const [offsets, sizes] = schema_.members<2>(item, PickleGlobal::chunk_storage_metadata,
                                                       {"offsets", "sizes"}, "a chunk");
      tensor.chunks.push_back({schema_.torch_size(offsets, "the offset of a chunk"),
                               schema_.torch_size(sizes, "the shape of a chunk"), std::nullopt});
    }
    check_volume(fqn, ref, tensor);
    std::string const fault = chunk_fault(tensor);
    if (!fault.empty()) {
      schema_.fail(ref, "tensor \"" + escaped(fqn) + "\": " + fault);
    }
    return tensor;
  }

  void check_volume(std::string_view fqn, PickleRef ref, TensorMetadata const& tensor) const {
    index_t bytes =
        tensor.unsupported.empty() ? static_cast<index_t>(size_of(tensor.dtype)) : index_t{1};
    for (index_t const extent : tensor.size) {
      if (__builtin_mul_overflow(bytes, std::max<index_t>(extent, 1), &bytes)) {
        schema_.fail(ref, "tensor \"" + escaped(fqn) + "\" of shape " + to_string(tensor.size) +
                              " has more bytes than 63 bits count");
      }
    }
  }

  /// Element type and layout out of the five properties; the rest tells nothing about the bytes. What
  /// is not known blocks this tensor alone.
  void read_properties(std::string_view fqn, PickleRef ref, TensorMetadata& tensor) const {
    PickleTree const& tree = schema_.tree();
    if (ref == no_pickle_ref ||
        !tree.is(ref, PickleKind::object, PickleGlobal::tensor_properties) ||
        tree.state(ref) == no_pickle_ref) {
      schema_.fail(ref, "tensor \"" + escaped(fqn) + "\" has no properties");
    }
    std::span<PickleRef const> const state = tree.items(tree.state(ref));
    if (!tree.is(state[1], PickleKind::call, PickleGlobal::get_layout)) {
      schema_.fail(state[1], "tensor \"" + escaped(fqn) + "\" has no layout");
    }
    std::string_view const layout = tree.text(tree.arguments(state[1])[0]);
    if (layout != "torch.strided") {
      tensor.unsupported = "unknown layout '" + escaped(layout) + "'";
    }
    if (tree.is_inert(state[0]) ||
        tree.is(state[0], PickleKind::global, PickleGlobal::unsupported_dtype)) {
      tensor.unsupported = "unknown dtype '" + escaped(tree.name(state[0])) + "'";
    } else if (tree.is(state[0], PickleKind::global, PickleGlobal::dtype)) {
      tensor.dtype = tree.node(state[0]).dtype;
    } else {
      schema_.fail(state[0], "tensor \"" + escaped(fqn) + "\" has no element type");
    }
  }

  /// The chunks of a tensor, sorted by offset; no two may start at the same place.
  [[nodiscard]] std::vector<std::uint32_t> offset_order(MetadataEntry const& entry,
                                                        PickleRef ref) const {
    std::vector<std::uint32_t> order;
    if (TensorMetadata const* tensor = entry.tensor()) {
      order.resize(tensor->chunks.size());
      for (std::size_t i = 0; i < order.size(); ++i) {
        order[i] = static_cast<std::uint32_t>(i);
      }
      auto const& chunks = tensor->chunks;
      std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
        return before(chunks[a].offsets, chunks[b].offsets);
      });
      for (std::size_t i = 1; i < order.size(); ++i) {
        if (chunks[order[i - 1]].offsets == chunks[order[i]].offsets) {
          schema_.fail(ref, "tensor \"" + escaped(entry.fqn) + "\" has two chunks at " +
                                to_string(chunks[order[i]].offsets));
        }
      }
    }
    return order;
  }

  [[nodiscard]] static bool before(Shape const& a, Shape const& b) {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  }

  /// Paths in the nested state dict. A planner may keep anything there; what is not a tuple of
  /// strings and integers is passed over.
  void read_paths(PickleRef dict) {
    for (MetadataEntry& entry : metadata_.entries) {
      entry.path = {entry.fqn};
    }
    if (dict == no_pickle_ref || !schema_.tree().is(dict, PickleKind::dict)) {
      return;
    }
    std::vector<bool> seen(metadata_.entries.size(), false);
    auto const pairs = schema_.tree().items(dict);
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      std::string_view const fqn = name(pairs[i]);
      auto const found = index_.find(std::string(fqn));
      if (found == index_.end()) {
        continue;
      }
      if (seen[found->second]) {
        schema_.fail(pairs[i], shardmesh::detail::concat('"', escaped(fqn),
                                                         "\" stands twice in planner_data"));
      }
      seen[found->second] = true;
      read_path(pairs[i + 1], metadata_.entries[found->second].path);
    }
  }

  void read_path(PickleRef ref, std::vector<PathElement>& path) {
    PickleTree const& tree = schema_.tree();
    if (!tree.is(ref, PickleKind::tuple) || tree.items(ref).empty()) {
      return;
    }
    std::vector<PathElement> elements;
    for (PickleRef const item : tree.items(ref)) {
      if (tree.is(item, PickleKind::text)) {
        schema_.charge(ref, sizeof(PathElement) + tree.text(item).size());
        elements.emplace_back(std::string(tree.text(item)));
      } else if (tree.is(item, PickleKind::integer) && tree.integer(item) >= 0) {
        schema_.charge(ref, sizeof(PathElement));
        elements.emplace_back(tree.integer(item));
      } else {
        return;
      }
    }
    path = std::move(elements);
  }

  void read_storage(PickleRef dict) {
    auto const pairs = schema_.items(dict, PickleKind::dict, "storage_data");
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      auto const [fqn_ref, offset] = schema_.members<2>(pairs[i], PickleGlobal::metadata_index,
                                                        {"fqn", "offset"}, "a key of storage_data");
      std::string_view const fqn = name(fqn_ref);
      auto const found = index_.find(std::string(fqn));
      if (found == index_.end()) {
        schema_.fail(pairs[i], "storage_data has \"" + escaped(fqn) +
                                   "\", which state_dict_metadata has not");
      }
      place(found->second, offset, pairs[i], read_info(pairs[i + 1]));
    }
  }

  [[nodiscard]] StorageInfo read_info(PickleRef ref) {
    auto const [path, offset, length, transforms] = schema_.members<4>(
        ref, PickleGlobal::storage_info,
        {"relative_path", "offset", "length", "transform_descriptors"}, "a value of storage_data");
    StorageInfo info;
    std::string_view const file = schema_.text(path, "relative_path");
    if (!is_plain_file_name(file)) {
      schema_.fail(path, "the file name \"" + escaped(file) +
                             "\" is not a plain name; files outside the checkpoint are never read");
    }
    schema_.charge(ref, file.size());
    info.relative_path = std::string(file);
    info.offset = static_cast<std::uint64_t>(schema_.integer(offset, "the offset of an item"));
    info.length = static_cast<std::uint64_t>(schema_.integer(length, "the length of an item"));
    if (info.offset + info.length > static_cast<std::uint64_t>(INT64_MAX)) {
      schema_.fail(ref, "offset and length of an item add up to more than 63 bits");
    }
    if (!schema_.is_none(transforms)) {
      auto const list = schema_.items(transforms, PickleKind::list, "transform_descriptors");
      if (list.size() > 8) {
        schema_.fail(transforms, "an item has too many transforms");
      }
      for (PickleRef const item : list) {
        std::string_view const transform = schema_.text(item, "a transform");
        schema_.charge(item, sizeof(std::string) + transform.size());
        info.transforms.emplace_back(transform);
      }
    }
    return info;
  }

  void place(std::size_t entry, PickleRef offset, PickleRef key, StorageInfo info) {
    MetadataEntry& target = metadata_.entries[entry];
    if (BytesMetadata* const bytes = target.value.bytes()) {
      if (!schema_.is_none(offset) || stored_bytes_[entry]) {
        schema_.fail(key, "storage_data has more than one item for \"" + escaped(target.fqn) +
                              "\", or one with an offset");
      }
      bytes->storage = std::move(info);
      stored_bytes_[entry] = true;
      return;
    }
    auto& chunks = target.value.tensor()->chunks;
    if (chunks.empty() && !target.tensor()->unsupported.empty()) {
      return;  // too many dimensions for a place
    }
    Shape const at = schema_.torch_size(offset, "the offset of an item");
    auto const& order = order_[entry];
    auto const found =
        std::lower_bound(order.begin(), order.end(), at, [&](std::uint32_t i, Shape const& x) {
          return before(chunks[i].offsets, x);
        });
    if (found == order.end() || !(chunks[*found].offsets == at)) {
      schema_.fail(key, "storage_data has an item for \"" + escaped(target.fqn) + "\" at " +
                            to_string(at) + ", where the tensor has no chunk");
    }
    if (chunks[*found].storage) {
      schema_.fail(key, "storage_data has two items for \"" + escaped(target.fqn) + "\" at " +
                            to_string(at));
    }
    chunks[*found].storage = std::move(info);
  }

  /// Everything that has bytes must have a place.
  void check_storage(PickleRef root) const {
    for (std::size_t i = 0; i < metadata_.entries.size(); ++i) {
      MetadataEntry const& entry = metadata_.entries[i];
      TensorMetadata const* const tensor = entry.tensor();
      bool const complete =
          tensor == nullptr
              ? stored_bytes_[i]
              : std::all_of(tensor->chunks.begin(), tensor->chunks.end(),
                            [](ChunkMetadata const& chunk) {
                              return chunk.storage.has_value() || is_empty_box(chunk.sizes);
                            });
      if (!complete) {
        schema_.fail(root, "storage_data has no item for (all of) \"" + escaped(entry.fqn) + "\"");
      }
    }
  }

  PickleSchema schema_;
  DcpMetadata metadata_;
  std::unordered_map<std::string, std::size_t> index_;
  std::vector<std::vector<std::uint32_t>> order_;
  std::vector<bool> stored_bytes_;
};

}  // namespace detail

/// Largest `.metadata` that is read.
inline constexpr std::uint64_t most_metadata_bytes = std::uint64_t{1} << 30;

/// Reads `.metadata` of a checkpoint, as PyTorch 2.3 to 2.15 and earlier ones write it. Runs
/// nothing that the file says; checks it wholly, except for what only the data files can tell.
/// @param path  of the file, for error messages.
/// A tensor whose element type or layout is not known, or that has more than 8 dimensions, is listed (`TensorMetadata::unsupported`); so is
/// one beside members of classes that are not known (`is_inert_global`), where nothing is needed of them.
/// @throws CorruptError with the place of the fault.
[[nodiscard]] inline DcpMetadata read_dcp_metadata(ByteSpan bytes,
                                                   std::string const& path = "(memory)",
                                                   PickleLimits const& limits = {}) {
  if (bytes.size() > most_metadata_bytes) {
    throw CorruptError(path, 0,
                       "shardmesh::read_dcp_metadata: " + path + " has " +
                           std::to_string(bytes.size()) + " bytes, more than 1 GiB");
  }
  PickleTree const tree = read_pickle(bytes, PickleDialect::metadata, path, 0, limits);
  return detail::DcpMetadataReader(tree, path).read();
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
