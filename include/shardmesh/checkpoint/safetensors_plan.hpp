// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/safetensors_checks.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/safetensors_header_writer.hpp>
#include <shardmesh/checkpoint/safetensors_index.hpp>
#include <shardmesh/checkpoint/safetensors_notes.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

/// A safetensors file to be written, by one rank or by many.
struct ModelFile {
  std::string name;
  format::SafetensorsHeader header;
  format::Bytes head;  ///< what stands before the data

  [[nodiscard]] std::uint64_t size() const { return head.size() + header.data_bytes(); }
};

/// Where the elements of a box go: into the row-major tensor at `offset` of a file.
struct ModelPart {
  PlacedItem const* item = nullptr;
  std::size_t file = 0;
  std::uint64_t offset = 0;
};

/// The files of a model and the parts that go into them.
struct ModelPlan {
  std::vector<ModelFile> files;
  std::vector<ModelPart> parts;  ///< of all ranks
};

namespace detail {

/// "00002".
[[nodiscard]] inline std::string five_digits(std::size_t value) {
  std::string const text = std::to_string(value);
  return std::string(text.size() < 5 ? 5 - text.size() : 0, '0') + text;
}

/// Header and text of a file that is being planned.
struct FileInProgress {
  format::SafetensorsHeader header;
  format::SafetensorsHeaderText text;
  bool full = false;  ///< a tensor had no room

  explicit FileInProgress(std::uint64_t most_header_bytes) : text(most_header_bytes) {}

  /// @returns false if there is no room for it in the header.
  [[nodiscard]] bool add(std::string const& key,
                         DType dtype,
                         Shape const& shape,
                         std::uint64_t metadata = 0) {
    format::SafetensorsEntry entry{key, dtype, shape, 0, 0};
    std::uint64_t const bytes = static_cast<std::uint64_t>(volume(shape)) * size_of(dtype);
    if (!text.add(entry, metadata + 8 * format::checks_of(bytes))) {
      return false;
    }
    header.tensors.push_back(std::move(entry));
    return true;
  }
  void set_metadata(std::vector<std::pair<std::string, std::string>> metadata) {
    header.metadata = std::move(metadata);
    text.reserve(room_for(header.metadata));
  }
  /// Bytes of a header with this metadata and the checksum of no tensor.
  [[nodiscard]] static std::uint64_t room_for(
      std::vector<std::pair<std::string, std::string>> metadata) {
    metadata.push_back(format::empty_checks(0));
    return format::detail::json_metadata(metadata).size() + format::check_spaces;
  }
};

/// Completes the headers, and with them the places of the parts.
inline void finish_plan(ModelPlan& plan, std::vector<FileInProgress>& files) {
  for (std::size_t i = 0; i < files.size(); ++i) {
    plan.files[i].header = std::move(files[i].header);
    plan.files[i].header.metadata.push_back(format::empty_checks(plan.files[i].header.tensors));
    plan.files[i].head = files[i].text.finish(plan.files[i].header.metadata);
  }
  for (ModelPart& part : plan.parts) {
    part.offset += plan.files[part.file].head.size();
  }
}

}  // namespace detail

/// What a file of a model may hold.
struct ModelRoom {
  std::uint64_t data_bytes = UINT64_MAX;  ///< of tensors; a larger tensor has a file of its own
  std::uint64_t header_bytes = format::most_safetensors_header_bytes;
};

/// Whole tensors in the order of the save plan, a new file whenever the next one would not fit, by its
/// data or in the header: "model-00002-of-00010.safetensors", or "model.safetensors" if one is enough.
/// Pure: every rank finds the same.
/// @param one_file  its name, if there is to be only one.
/// @throws UnsupportedError (dtype; a header that would be too large where there is to be one file),
///         InvalidArgument (names), as `write_safetensors_header`.
[[nodiscard]] inline ModelPlan plan_model(std::vector<PlacedItem> const& plan,
                                          ModelRoom const& room,
                                          std::string const& one_file = {}) {
  ModelPlan model;
  std::unordered_map<std::string_view, std::pair<std::size_t, std::uint64_t>> places;
  std::vector<detail::FileInProgress> files;
  auto const start = [&] {
    files.emplace_back(room.header_bytes).set_metadata({{"format", "pt"}});
  };
  start();
  for (PlacedItem const& placed : plan) {
    SaveItem const& item = placed.item;
    auto const [at, is_new] = places.try_emplace(item.key, 0, 0);
    if (is_new) {
      std::uint64_t const held = files.back().text.data_bytes();
      std::uint64_t const bytes =
          static_cast<std::uint64_t>(volume(item.shape)) * size_of(*item.dtype);
      bool const full = held > 0 && bytes > room.data_bytes - std::min(held, room.data_bytes);
      if (full || !files.back().add(item.key, *item.dtype, item.shape)) {
        std::size_t const number = files.back().header.tensors.size();
        bool const may_start = one_file.empty() && number > 0;
        if (may_start) {
          start();
        }
        if (!may_start || !files.back().add(item.key, *item.dtype, item.shape)) {
          format::throw_large_header(one_file.empty() ? "a file" : one_file, item.key, number,
                                     room.header_bytes);
        }
      }
      at->second = {files.size() - 1, files.back().header.tensors.back().begin};
    }
    model.parts.push_back({&placed, at->second.first, at->second.second});
  }
  model.files.resize(files.size());
  for (std::size_t i = 0; i < files.size(); ++i) {
    model.files[i].name = !one_file.empty() ? one_file
                          : files.size() == 1
                              ? "model.safetensors"
                              : detail::concat("model-", detail::five_digits(i + 1), "-of-",
                                               detail::five_digits(files.size()), ".safetensors");
  }
  detail::finish_plan(model, files);
  return model;
}

namespace detail {

/// The metadata of one file of the sharded variant, as text that grows with its tensors: what DCP
/// reads, the offsets of the parts; and what tells that a file was lost, the shapes of the tensors.
struct ShardNotes {
  std::string offsets = "{";
  std::string shapes = "{";

  /// @returns bytes that are more now, as text in JSON.
  std::uint64_t add(SaveItem const& item) {
    std::string const name =
        detail::concat(offsets.size() == 1 ? "" : ",", format::detail::json_string(item.key), ':');
    std::string const offset =
        name + "{\"saved_offsets\":" + format::detail::json_list(item.box.offset) + "}";
    std::string const shape = name + format::detail::json_list(item.shape);
    offsets += offset;
    shapes += shape;
    return format::detail::json_string(offset).size() + format::detail::json_string(shape).size();
  }
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> metadata(
      std::string const& files) const {
    return {{"format", "pt"},
            {"DCP_VERSION", "1.0"},
            {"DCP_SHARDING_INFO", offsets + "}"},
            {std::string(format::shapes_key), shapes + "}"},
            {std::string(format::files_key), files}};
  }
};

}  // namespace detail

/// A file for each rank that writes anything, as DCP's `HuggingFaceStorageWriter` names and marks
/// them: "shard-00003-model-00001-of-00001.safetensors" is rank 2's. A second box of a tensor, of a
/// strided shard, goes into a further file, since a file has each name once; so do tensors for which
/// there is no room in a header. Pure.
/// @throws as `plan_model`.
[[nodiscard]] inline ModelPlan plan_model_shards(
    std::vector<PlacedItem> const& plan,
    std::uint64_t most_header_bytes = format::most_safetensors_header_bytes) {
  std::map<int, std::vector<std::size_t>> by_rank;               // files, by number
  std::map<std::pair<int, std::string_view>, std::size_t> next;  // number for the next box
  std::vector<detail::FileInProgress> files;
  std::vector<detail::ShardNotes> notes;
  ModelPlan model;
  auto const add = [&](std::size_t file, SaveItem const& item) {
    if (files[file].full) {
      return false;
    }
    std::uint64_t const bytes = detail::ShardNotes{}.add(item);
    files[file].full = !files[file].add(item.key, *item.dtype, item.box.extent, bytes);
    if (!files[file].full) {
      notes[file].add(item);
    }
    return !files[file].full;
  };
  std::size_t highest = 0;
  for (PlacedItem const& placed : plan) {
    SaveItem const& item = placed.item;
    std::vector<std::size_t>& own = by_rank[placed.rank];
    std::size_t& number = next[{placed.rank, item.key}];
    while (number < own.size() && !add(own[number], item)) {
      ++number;
    }
    if (number == own.size()) {
      own.push_back(files.size());
      notes.emplace_back();
      // The number of files is not known yet; any has at most 20 digits.
      files.emplace_back(most_header_bytes)
          .text.reserve(
              detail::FileInProgress::room_for(notes.back().metadata(std::string(20, '0'))));
      if (!add(own[number], item)) {
        format::throw_large_header("a file", item.key, 0, most_header_bytes);
      }
    }
    model.parts.push_back({&placed, own[number], files[own[number]].header.tensors.back().begin});
    highest = std::max(highest, number);
    ++number;
  }
  model.files.resize(files.size());
  for (auto const& [rank, own] : by_rank) {
    for (std::size_t number = 0; number < own.size(); ++number) {
      model.files[own[number]].name =
          detail::concat("shard-", detail::five_digits(static_cast<std::size_t>(rank) + 1),
                         "-model-", detail::five_digits(number + 1), "-of-",
                         detail::five_digits(highest + 1), ".safetensors");
      files[own[number]].header.metadata =
          notes[own[number]].metadata(std::to_string(files.size()));
    }
  }
  detail::finish_plan(model, files);
  return model;
}

/// `model.safetensors.index.json` of a model of several files.
/// @throws UnsupportedError if it would be larger than what is read.
[[nodiscard]] inline std::string index_of_model(ModelPlan const& model) {
  std::uint64_t total = 0;
  std::string files;
  for (ModelFile const& file : model.files) {
    total += file.header.data_bytes();
    for (format::SafetensorsEntry const& entry : file.header.tensors) {
      files += detail::concat(files.empty() ? "\n    " : ",\n    ",
                              format::detail::json_string(entry.name), ": ",
                              format::detail::json_string(file.name));
    }
  }
  std::string index = "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(total) +
                      "\n  },\n  \"weight_map\": {" + files + "\n  }\n}\n";
  if (index.size() > format::most_safetensors_index_bytes) {
    throw UnsupportedError("shardmesh: the index of the model would have " +
                           std::to_string(index.size()) + " bytes, at most " +
                           std::to_string(format::most_safetensors_index_bytes) +
                           " are read; give shorter names");
  }
  return index;
}

}  // namespace v0
}  // namespace shardmesh
