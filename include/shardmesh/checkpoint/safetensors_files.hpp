// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/safetensors_index.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {

/// The files that a path of a user means.
struct SafetensorsFiles {
  std::string prefix;              ///< of the paths: the directory with a slash, or nothing
  std::vector<std::string> names;  ///< in the directory, sorted
  std::string index;               ///< path of the index; empty if there is none
  format::SafetensorsIndex map;    ///< what it says
};

namespace detail {

[[nodiscard]] inline format::SafetensorsIndex read_index_file(std::string const& path) {
  File const file = File::open(path);
  if (file.size() > format::most_safetensors_index_bytes) {
    throw CorruptError(path, 0,
                       "shardmesh: " + path + " has " + std::to_string(file.size()) +
                           " bytes, too many for an index");
  }
  format::Bytes const text = file.read(0, file.size());
  return format::read_safetensors_index(format::as_text(text), path);
}

[[nodiscard]] inline std::string prefix_of(std::string const& path) {
  return path.substr(0, path.find_last_of('/') + 1);
}

[[nodiscard]] inline SafetensorsFiles files_of_index(std::string const& path) {
  SafetensorsFiles found{prefix_of(path), {}, path, read_index_file(path)};
  for (auto const& [tensor, file] : found.map.files) {
    found.names.push_back(file);
  }
  std::sort(found.names.begin(), found.names.end());
  found.names.erase(std::unique(found.names.begin(), found.names.end()), found.names.end());
  return found;
}

}  // namespace detail

/// Finds the files of a model. A path that ends in ".safetensors" is one file, one that ends in ".json"
/// an index; in a directory the index decides, if there is one: `model.safetensors.index.json`, or any
/// other name that hubs give to one; all `*.safetensors` if there is none.
/// @throws IoError (nothing there), InvalidArgument (several indexes), CorruptError (no index).
[[nodiscard]] inline SafetensorsFiles find_safetensors_files(std::string const& path) {
  if (path.ends_with(".safetensors")) {
    std::string const prefix = detail::prefix_of(path);
    return {prefix, {path.substr(prefix.size())}, {}, {}};
  }
  if (path.ends_with(".json")) {
    return detail::files_of_index(path);
  }
  SafetensorsFiles found{path + "/", {}, {}, {}};
  std::vector<std::string> indexes;
  for (std::string const& name : PosixStorage::list(path)) {
    if (name.ends_with(".safetensors")) {
      found.names.push_back(name);
    } else if (format::is_safetensors_index(name)) {
      indexes.push_back(name);
    }
  }
  std::sort(found.names.begin(), found.names.end());
  std::sort(indexes.begin(), indexes.end());
  if (indexes.size() > 1) {
    std::string list;
    for (std::string const& name : indexes) {
      list += (list.empty() ? "" : ", ") + name;
    }
    throw InvalidArgument("shardmesh: " + path + " holds " + std::to_string(indexes.size()) +
                          " models, each with its index: " + list +
                          "; give the path of one of these instead of the directory");
  }
  if (indexes.size() == 1) {
    return detail::files_of_index(path + "/" + indexes.front());
  }
  if (found.names.empty()) {
    throw IoError(path, ENOENT,
                  "shardmesh::load: " + path +
                      " holds no file named *.safetensors and no index of such; give the file, its "
                      "directory, or its index");
  }
  return found;
}

}  // namespace v0
}  // namespace shardmesh
