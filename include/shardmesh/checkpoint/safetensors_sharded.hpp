// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <shardmesh/checkpoint/safetensors.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh::inline v0 {

namespace detail {

/// Tensors in order, a new file whenever the next one would not fit.
[[nodiscard]] inline std::vector<StateDict> split_by_bytes(StateDict const& dict,
                                                           std::uint64_t most_bytes) {
  std::vector<StateDict> parts(1);
  std::uint64_t held = 0;
  for (StateEntry const& entry : dict) {
    if (!entry.is_tensor()) {
      continue;
    }
    std::uint64_t const bytes = entry.tensor().local_bytes().size();
    if (held > 0 && bytes > most_bytes - std::min(held, most_bytes)) {
      parts.emplace_back();
      held = 0;
    }
    parts.back().insert(entry.path, entry.value);
    held += bytes;
  }
  return parts;
}

/// "model-00002-of-00010.safetensors", counted from 1.
[[nodiscard]] inline std::string shard_name(std::size_t number, std::size_t count) {
  auto const digits = [](std::size_t value) {
    std::string const text = std::to_string(value);
    return std::string(text.size() < 5 ? 5 - text.size() : 0, '0') + text;
  };
  return "model-" + digits(number) + "-of-" + digits(count) + ".safetensors";
}

}  // namespace detail

/// Writes whole tensors as a model of several safetensors files with `model.safetensors.index.json`,
/// the form of model hubs; one file and no index if all fit into one. The directory appears when it is
/// complete. No communication: call it on one rank, e.g. with `full_state_dict`.
///
/// @param directory   must not exist.
/// @param most_bytes  tensor data in a file; a larger tensor has a file of its own.
/// @throws InvalidArgument (the directory exists, a tensor is sharded or partial), UnsupportedError
///         (dtype), IoError.
inline void save_safetensors_sharded(std::string const& directory,
                                     StateDict const& dict,
                                     std::uint64_t most_bytes) {
  if (PosixStorage::exists(directory)) {
    throw InvalidArgument("shardmesh::save_safetensors_sharded: " + directory +
                          " exists; give a new directory");
  }
  std::vector<StateDict> const parts = detail::split_by_bytes(dict, most_bytes);
  std::string const temporary = PosixStorage::temporary_name(directory);
  PosixStorage::remove_all(temporary);
  PosixStorage::make_directories(temporary);
  try {
    std::uint64_t total = 0;
    nlohmann::ordered_json files = nlohmann::ordered_json::object();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      std::string const name =
          parts.size() == 1 ? "model.safetensors" : detail::shard_name(i + 1, parts.size());
      save_safetensors(temporary + "/" + name, parts[i]);
      for (StateEntry const& entry : parts[i]) {
        files[entry.key] = name;
        total += entry.tensor().local_bytes().size();
      }
    }
    if (parts.size() > 1) {
      nlohmann::ordered_json const index{{"metadata", {{"total_size", total}}},
                                         {"weight_map", files}};
      std::string const text = index.dump(2) + "\n";
      File file = File::create(temporary + "/model.safetensors.index.json");
      file.write_at(0, std::as_bytes(std::span<char const>(text.data(), text.size())));
      file.finish();
    }
    PosixStorage::sync_directory(temporary);
    PosixStorage::rename(temporary, directory);
    PosixStorage::sync_directory(PosixStorage::parent(directory));
  } catch (...) {
    PosixStorage::remove_all(temporary);
    throw;
  }
}

}  // namespace shardmesh::inline v0
