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
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {

/// The files that a path of a user means.
struct SafetensorsFiles {
  Directory directory;
  std::vector<std::string> names;  ///< in the directory, sorted
  std::string index;               ///< path of the index; empty if there is none
  format::SafetensorsIndex map;    ///< what it says
};

namespace detail {

[[nodiscard]] inline format::SafetensorsIndex read_index_file(Directory const& directory,
                                                              std::string const& name) {
  File const file = directory.open_file(name);
  std::string const& path = file.path();
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

/// Takes the files that an index lists.
inline void take_index(SafetensorsFiles& found, std::string const& name) {
  found.map = read_index_file(found.directory, name);
  found.index = found.directory.path_of(name);
  found.names.clear();
  for (auto const& [tensor, file] : found.map.files) {
    found.names.push_back(file);
  }
  std::sort(found.names.begin(), found.names.end());
  found.names.erase(std::unique(found.names.begin(), found.names.end()), found.names.end());
}

/// Finds the files in a directory.
inline void look_for_files(SafetensorsFiles& found) {
  std::vector<std::string> indexes;
  for (std::string const& name : found.directory.list()) {
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
    throw InvalidArgument("shardmesh: " + found.directory.path() + " holds " +
                          std::to_string(indexes.size()) + " models, each with its index: " + list +
                          "; give the path of one of these instead of the directory");
  }
  if (indexes.size() == 1) {
    take_index(found, indexes.front());
    return;
  }
  if (found.names.empty()) {
    throw IoError(found.directory.path(), ENOENT,
                  "shardmesh::load: " + found.directory.path() +
                      " holds no file named *.safetensors and no index of such; give the file, its "
                      "directory, or its index");
  }
}

}  // namespace detail

/// Finds the files of a model. A path that ends in ".safetensors" is one file, one that ends in ".json"
/// an index; in a directory the index decides, if there is one: `model.safetensors.index.json`, or any
/// other name that hubs give to one; all `*.safetensors` if there is none.
/// @throws IoError (nothing there), InvalidArgument (several indexes), CorruptError (no index).
[[nodiscard]] inline SafetensorsFiles find_safetensors_files(std::string const& path) {
  if (path.ends_with(".safetensors")) {
    std::string const prefix = detail::prefix_of(path);
    return {Directory::open(prefix), {path.substr(prefix.size())}, {}, {}};
  }
  if (path.ends_with(".json")) {
    std::string const prefix = detail::prefix_of(path);
    SafetensorsFiles found{Directory::open(prefix), {}, {}, {}};
    detail::read_in(found.directory,
                    [&] { detail::take_index(found, path.substr(prefix.size())); });
    return found;
  }
  SafetensorsFiles found{Directory::open(path), {}, {}, {}};
  detail::read_in(found.directory, [&] { detail::look_for_files(found); });
  return found;
}

}  // namespace v0
}  // namespace shardmesh
