// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <shardmesh/checkpoint/format/dcp_metadata_reader.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A name with every run of digits as one '#'.
[[nodiscard]] inline std::string name_pattern(std::string_view name) {
  std::string pattern;
  for (char const c : name) {
    bool const digit = c >= '0' && c <= '9';
    if (!digit || pattern.empty() || pattern.back() != '#') {
      pattern += digit ? '#' : c;
    }
  }
  return pattern;
}

/// Is it a name that `save` and PyTorch's writers give to the files of a checkpoint, whether its
/// `.metadata` names the file (data of fewer ranks than before stays behind in PyTorch) or not?
[[nodiscard]] inline bool is_checkpoint_name(std::string_view name) {
  constexpr std::array<std::string_view, 8> patterns{
      ".metadata",    ".metadata.tmp", ".shardmesh",       ".metric",
      "__#_#.distcp", "__#.metadata",  "__#.metadata.tmp", ".metric.tmp-#"};
  std::string const pattern = name.find('#') == name.npos ? name_pattern(name) : std::string();
  return std::find(patterns.begin(), patterns.end(), pattern) != patterns.end();
}

/// Is it a name that `save_safetensors_sharded` and `save_safetensors_by_rank` give to their files?
[[nodiscard]] inline bool is_model_name(std::string_view name) {
  constexpr std::array<std::string_view, 4> patterns{
      "model.safetensors", "model-#-of-#.safetensors", "shard-#-model-#-of-#.safetensors",
      "model.safetensors.index.json"};
  std::string const pattern = name.find('#') == name.npos ? name_pattern(name) : std::string();
  return std::find(patterns.begin(), patterns.end(), pattern) != patterns.end();
}

/// Data files of unusual names that the `.metadata` of a directory names; none if it cannot be read.
[[nodiscard]] inline std::vector<std::string> named_by_metadata(std::string const& directory) {
  std::vector<std::string> names;
  try {
    File const file = File::open(directory + "/.metadata");
    format::DcpMetadata const metadata = format::read_dcp_metadata(
        file.read(0, std::min(file.size(), format::most_metadata_bytes)), file.path());
    auto const add = [&names](format::StorageInfo const& info) {
      if (!is_checkpoint_name(info.relative_path)) {
        names.push_back(info.relative_path);
      }
    };
    for (format::MetadataEntry const& entry : metadata.entries) {
      if (format::BytesMetadata const* const bytes = entry.bytes()) {
        add(bytes->storage);
        continue;
      }
      for (format::ChunkMetadata const& chunk : entry.tensor()->chunks) {
        if (chunk.storage) {
          add(*chunk.storage);
        }
      }
    }
  } catch (Error const&) {  // then what it names is kept with the rest
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

/// The names in a directory, by whose they are.
struct DirectoryNames {
  std::vector<std::string> own;      ///< files of the checkpoint in it; `.metadata` is the last
  std::vector<std::string> foreign;  ///< everything else, and all directories
};

/// Tells what belongs to the checkpoint in a directory from what somebody has put beside it.
/// @throws IoError
[[nodiscard]] inline DirectoryNames sort_names(std::string const& directory) {
  std::vector<std::string> const all = PosixStorage::list(directory);
  bool const is_dcp = std::any_of(all.begin(), all.end(), is_checkpoint_name);
  bool const is_plain =
      is_dcp && std::all_of(all.begin(), all.end(), is_checkpoint_name);  // the usual case
  std::vector<std::string> const data =
      is_dcp && !is_plain ? named_by_metadata(directory) : std::vector<std::string>();
  DirectoryNames names;
  bool has_metadata = false;
  for (std::string const& name : all) {
    bool const known =
        is_dcp ? is_checkpoint_name(name) || std::binary_search(data.begin(), data.end(), name)
               : is_model_name(name);
    if (!known || PosixStorage::is_directory(directory + "/" + name)) {
      names.foreign.push_back(name);
    } else if (name == ".metadata") {
      has_metadata = true;
    } else {
      names.own.push_back(name);
    }
  }
  if (has_metadata) {
    names.own.emplace_back(".metadata");
  }
  return names;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
