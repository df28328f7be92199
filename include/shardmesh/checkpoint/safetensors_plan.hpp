// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>

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

/// Fills in where each part goes, once the headers are complete.
inline void place_parts(ModelPlan& plan) {
  std::vector<std::unordered_map<std::string, std::uint64_t>> begins(plan.files.size());
  for (std::size_t i = 0; i < plan.files.size(); ++i) {
    ModelFile& file = plan.files[i];
    file.head = format::write_safetensors_header(file.header);
    for (format::SafetensorsEntry const& entry : file.header.tensors) {
      begins[i].emplace(entry.name, file.head.size() + entry.begin);
    }
  }
  for (ModelPart& part : plan.parts) {
    part.offset = begins[part.file].at(part.item->item.key);
  }
}

}  // namespace detail

/// Whole tensors in the order of the save plan, a new file whenever the next one would not fit:
/// "model-00002-of-00010.safetensors", or "model.safetensors" if one is enough. Pure: every rank finds
/// the same.
/// @param most_bytes  tensor data in a file; a larger tensor has a file of its own.
/// @throws UnsupportedError (dtype), InvalidArgument (names), as `write_safetensors_header`.
[[nodiscard]] inline ModelPlan plan_model(std::vector<PlacedItem> const& plan,
                                          std::uint64_t most_bytes) {
  ModelPlan model;
  std::unordered_map<std::string, std::size_t> file_of;
  std::uint64_t held = 0;
  model.files.emplace_back().header.metadata = {{"format", "pt"}};
  for (PlacedItem const& placed : plan) {
    SaveItem const& item = placed.item;
    if (file_of.count(item.key) == 0) {
      std::uint64_t const bytes =
          static_cast<std::uint64_t>(volume(item.shape)) * size_of(*item.dtype);
      if (held > 0 && bytes > most_bytes - std::min(held, most_bytes)) {
        model.files.emplace_back().header.metadata = {{"format", "pt"}};
        held = 0;
      }
      held += bytes;
      file_of.emplace(item.key, model.files.size() - 1);
      model.files.back().header.tensors.push_back({item.key, *item.dtype, item.shape, 0, 0});
    }
    model.parts.push_back({&placed, file_of.at(item.key), 0});
  }
  for (std::size_t i = 0; i < model.files.size(); ++i) {
    model.files[i].name = model.files.size() == 1
                              ? "model.safetensors"
                              : "model-" + detail::five_digits(i + 1) + "-of-" +
                                    detail::five_digits(model.files.size()) + ".safetensors";
  }
  detail::place_parts(model);
  return model;
}

/// A file for each rank that writes anything, as DCP's `HuggingFaceStorageWriter` names and marks
/// them: "shard-00003-model-00001-of-00001.safetensors" is rank 2's. A second box of a tensor, of a
/// strided shard, goes into a further file, since a file has each name once. Pure.
/// @throws as `plan_model`.
[[nodiscard]] inline ModelPlan plan_model_shards(std::vector<PlacedItem> const& plan) {
  std::map<std::pair<int, std::size_t>, std::size_t> files;  // of rank and number
  std::map<std::pair<int, std::string>, std::size_t> boxes;  // so far, of rank and key
  std::vector<nlohmann::ordered_json> offsets;
  ModelPlan model;
  std::size_t highest = 0;
  for (PlacedItem const& placed : plan) {
    SaveItem const& item = placed.item;
    std::size_t const number = boxes[{placed.rank, item.key}]++;
    auto const [at, is_new] = files.try_emplace({placed.rank, number}, model.files.size());
    if (is_new) {
      model.files.emplace_back();
      offsets.push_back(nlohmann::ordered_json::object());
    }
    highest = std::max(highest, number);
    model.files[at->second].header.tensors.push_back(
        {item.key, *item.dtype, item.box.extent, 0, 0});
    offsets[at->second][item.key]["saved_offsets"] =
        std::vector<index_t>(item.box.offset.begin(), item.box.offset.end());
    model.parts.push_back({&placed, at->second, 0});
  }
  for (auto const& [who, at] : files) {
    auto const& [rank, number] = who;
    model.files[at].name = "shard-" + detail::five_digits(static_cast<std::size_t>(rank) + 1) +
                           "-model-" + detail::five_digits(number + 1) + "-of-" +
                           detail::five_digits(highest + 1) + ".safetensors";
    model.files[at].header.metadata = {
        {"format", "pt"}, {"DCP_VERSION", "1.0"}, {"DCP_SHARDING_INFO", offsets[at].dump()}};
  }
  detail::place_parts(model);
  return model;
}

/// `model.safetensors.index.json` of a model of several files.
[[nodiscard]] inline std::string index_of_model(ModelPlan const& model) {
  std::uint64_t total = 0;
  nlohmann::ordered_json files = nlohmann::ordered_json::object();
  for (ModelFile const& file : model.files) {
    total += file.header.data_bytes();
    for (format::SafetensorsEntry const& entry : file.header.tensors) {
      files[entry.name] = file.name;
    }
  }
  nlohmann::ordered_json const index{{"metadata", {{"total_size", total}}}, {"weight_map", files}};
  return index.dump(2) + "\n";
}

}  // namespace v0
}  // namespace shardmesh
