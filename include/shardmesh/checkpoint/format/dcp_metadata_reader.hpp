// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/budget.hpp>
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
      : schema_(tree, path, 0, "shardmesh::read_dcp_metadata"),
        work_(ChunkWork::of(tree.pickle_bytes())) {}

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
    std::size_t const count = pairs.size() / 2;
    schema_.charge(dict, count * (sizeof(MetadataEntry) + 2 * sizeof(std::uint32_t)));
    metadata_.entries.reserve(count);
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      std::string_view const fqn = name(pairs[i]);
      schema_.charge(pairs[i], text_bytes(fqn.size()));
      metadata_.entries.push_back({std::string(fqn), {}, BytesMetadata{}});
      MetadataEntry& entry = metadata_.entries.back();
      if (!schema_.tree().is(pairs[i + 1], PickleKind::object,
                             PickleGlobal::bytes_storage_metadata)) {
        entry.value = read_tensor(fqn, pairs[i + 1]);
      }
    }
    stored_bytes_.resize(count, false);
    sort_names(pairs);
    sort_chunks(dict, pairs);
  }

  /// Makes the index of names; each stands once.
  void sort_names(std::span<PickleRef const> pairs) {
    auto const& entries = metadata_.entries;
    by_name_.resize(entries.size());
    std::iota(by_name_.begin(), by_name_.end(), 0U);
    std::sort(by_name_.begin(), by_name_.end(), [&](std::uint32_t a, std::uint32_t b) {
      int const order = entries[a].fqn.compare(entries[b].fqn);
      return order < 0 || (order == 0 && a < b);
    });
    for (std::size_t i = 1; i < by_name_.size(); ++i) {
      if (entries[by_name_[i - 1]].fqn == entries[by_name_[i]].fqn) {
        schema_.fail(pairs[2 * std::size_t{by_name_[i]}],
                     shardmesh::detail::concat('"', escaped(entries[by_name_[i]].fqn),
                                               "\" stands twice in state_dict_metadata"));
      }
    }
  }

  /// The number of the entry of a name; how many there are if there is none.
  [[nodiscard]] std::size_t find(std::string_view fqn) const {
    auto const& entries = metadata_.entries;
    auto const at = std::lower_bound(
        by_name_.begin(), by_name_.end(), fqn,
        [&](std::uint32_t i, std::string_view text) { return entries[i].fqn < text; });
    return at != by_name_.end() && entries[*at].fqn == fqn ? *at : entries.size();
  }

  [[nodiscard]] TensorMetadata read_tensor(std::string_view fqn, PickleRef ref) {
    auto const [properties, size, chunks] = schema_.members<3>(
        ref, PickleGlobal::tensor_storage_metadata, {"properties", "size", "chunks"}, "an entry");
    TensorMetadata tensor;
    read_properties(fqn, properties, tensor);
    if (schema_.rank_of(size) > max_rank) {
      schema_.charge(ref, heap_bytes(64));
      tensor.unsupported = std::to_string(schema_.rank_of(size)) + " dimensions; at most " +
                           std::to_string(max_rank) + " are supported";
      return tensor;
    }
    tensor.size = schema_.torch_size(size, "the size of a tensor");
    auto const list = schema_.items(chunks, PickleKind::list, "the chunks of a tensor");
    schema_.charge(ref, heap_bytes(list.size() * sizeof(ChunkMetadata)) +
                            list.size() * sizeof(std::uint32_t));
    tensor.chunks.reserve(list.size());
    for (PickleRef const item : list) {
      auto const [offsets, sizes] = schema_.members<2>(item, PickleGlobal::chunk_storage_metadata,
                                                       {"offsets", "sizes"}, "a chunk");
      tensor.chunks.push_back({schema_.torch_size(offsets, "the offset of a chunk"),
                               schema_.torch_size(sizes, "the shape of a chunk"), std::nullopt});
    }
    check_volume(fqn, ref, tensor);
    std::string const fault = chunk_fault(tensor, work_);
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
  void read_properties(std::string_view fqn, PickleRef ref, TensorMetadata& tensor) {
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
      schema_.charge(ref, heap_bytes(2048));
      tensor.unsupported = "unknown layout '" + escaped(layout) + "'";
    }
    if (tree.is_inert(state[0]) ||
        tree.is(state[0], PickleKind::global, PickleGlobal::unsupported_dtype)) {
      schema_.charge(ref, heap_bytes(2048));
      tensor.unsupported = "unknown dtype '" + escaped(tree.name(state[0])) + "'";
    } else if (tree.is(state[0], PickleKind::global, PickleGlobal::dtype)) {
      tensor.dtype = tree.node(state[0]).dtype;
    } else {
      schema_.fail(state[0], "tensor \"" + escaped(fqn) + "\" has no element type");
    }
  }

  /// Sorts the chunks of each tensor by offset; no two may start at the same place.
  void sort_chunks(PickleRef dict, std::span<PickleRef const> pairs) {
    std::size_t count = 0;
    first_.reserve(metadata_.entries.size());
    for (MetadataEntry const& entry : metadata_.entries) {
      first_.push_back(static_cast<std::uint32_t>(count));
      count += entry.tensor() == nullptr ? 0 : entry.tensor()->chunks.size();
    }
    if (count > UINT32_MAX) {
      schema_.fail(dict, "there are more chunks than 32 bits count");
    }
    order_.resize(count);
    for (std::size_t i = 0; i < metadata_.entries.size(); ++i) {
      if (TensorMetadata const* const tensor = metadata_.entries[i].tensor()) {
        sort_chunks(metadata_.entries[i].fqn, tensor->chunks, order_of(i), pairs[2 * i]);
      }
    }
  }
  void sort_chunks(std::string const& fqn,
                   std::vector<ChunkMetadata> const& chunks,
                   std::span<std::uint32_t> order,
                   PickleRef ref) const {
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return before(chunks[a].offsets, chunks[b].offsets);
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (chunks[order[i - 1]].offsets == chunks[order[i]].offsets) {
        schema_.fail(ref, "tensor \"" + escaped(fqn) + "\" has two chunks at " +
                              to_string(chunks[order[i]].offsets));
      }
    }
  }

  /// The chunks of an entry, sorted by offset.
  [[nodiscard]] std::span<std::uint32_t> order_of(std::size_t entry) {
    std::size_t const end = entry + 1 < first_.size() ? first_[entry + 1] : order_.size();
    return std::span(order_).subspan(first_[entry], end - first_[entry]);
  }

  [[nodiscard]] static bool before(Shape const& a, Shape const& b) {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  }

  /// Paths in the nested state dict. A planner may keep anything there; what is not a tuple of
  /// strings and integers is passed over.
  void read_paths(PickleRef dict) {
    std::vector<bool> seen(metadata_.entries.size(), false);
    if (dict != no_pickle_ref && schema_.tree().is(dict, PickleKind::dict)) {
      read_paths(dict, seen);
    }
    for (MetadataEntry& entry : metadata_.entries) {
      if (entry.path.empty()) {
        schema_.charge(dict, heap_bytes(sizeof(PathElement)) + text_bytes(entry.fqn.size()));
        entry.path.emplace_back(entry.fqn);
      }
    }
  }
  void read_paths(PickleRef dict, std::vector<bool>& seen) {
    auto const pairs = schema_.tree().items(dict);
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      std::string_view const fqn = name(pairs[i]);
      std::size_t const found = find(fqn);
      if (found == metadata_.entries.size()) {
        continue;
      }
      if (seen[found]) {
        schema_.fail(pairs[i], shardmesh::detail::concat('"', escaped(fqn),
                                                         "\" stands twice in planner_data"));
      }
      seen[found] = true;
      read_path(pairs[i + 1], metadata_.entries[found].path);
    }
  }

  void read_path(PickleRef ref, std::vector<PathElement>& path) {
    PickleTree const& tree = schema_.tree();
    if (!tree.is(ref, PickleKind::tuple) || tree.items(ref).empty()) {
      return;
    }
    schema_.charge(ref, heap_bytes(tree.items(ref).size() * sizeof(PathElement)));
    std::vector<PathElement> elements;
    elements.reserve(tree.items(ref).size());
    for (PickleRef const item : tree.items(ref)) {
      if (tree.is(item, PickleKind::text)) {
        schema_.charge(ref, text_bytes(tree.text(item).size()));
        elements.emplace_back(std::string(tree.text(item)));
      } else if (tree.is(item, PickleKind::integer) && tree.integer(item) >= 0) {
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
      std::size_t const found = find(fqn);
      if (found == metadata_.entries.size()) {
        schema_.fail(pairs[i], "storage_data has \"" + escaped(fqn) +
                                   "\", which state_dict_metadata has not");
      }
      place(found, offset, pairs[i], read_info(pairs[i + 1]));
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
    schema_.charge(ref, text_bytes(file.size()));
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
        schema_.charge(item, 2 * sizeof(std::string) + text_bytes(transform.size()));
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
    std::span<std::uint32_t const> const order = order_of(entry);
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
  std::vector<std::uint32_t> by_name_;  // entries, sorted by name
  std::vector<std::uint32_t> first_;    // by entry, where its chunks start in order_
  std::vector<std::uint32_t> order_;    // the chunks of each entry, sorted by offset
  std::vector<bool> stored_bytes_;
  ChunkWork work_;
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
