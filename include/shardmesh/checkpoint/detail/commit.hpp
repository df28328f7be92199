// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cerrno>
#include <string>

#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh::inline v0::detail {

[[nodiscard]] inline std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  return path;
}

/// Removes what saves to `directory` that were interrupted have left behind.
inline void remove_interrupted(std::string const& directory) {
  std::string const parent = PosixStorage::parent(directory);
  std::string const mark =
      directory.substr(directory.find_last_of('/') + 1) + std::string(PosixStorage::temporary_mark);
  if (!PosixStorage::exists(parent)) {
    return;
  }
  for (std::string const& name : PosixStorage::list(parent)) {
    if (name.starts_with(mark) &&
        name.find_first_not_of("0123456789", mark.size()) == std::string::npos) {
      PosixStorage::remove_all(parent + "/" + name);
    }
  }
}

/// A name beside `target`, for what is to stand there once it is complete; the directories above it,
/// and a directory of that name if it is to be one, are made.
[[nodiscard]] inline std::string make_temporary(std::string const& target,
                                                bool is_directory = true) {
  remove_interrupted(target);
  std::string const temporary = PosixStorage::temporary_name(target);
  PosixStorage::make_directories(is_directory ? temporary : PosixStorage::parent(temporary));
  return temporary;
}

/// Gives a complete directory its name, in one step. An older one keeps its place until then.
inline void publish(std::string const& temporary, std::string const& directory) {
  PosixStorage::sync_directory(temporary);
  bool const replaces = PosixStorage::exists(directory);
  if (!replaces) {
    PosixStorage::rename(temporary, directory);
  } else if (!PosixStorage::exchange(temporary, directory)) {
    throw IoError(directory, ENOSYS,
                  "shardmesh::save: the file system of " + directory +
                      " cannot exchange two directories, so the old checkpoint cannot be replaced "
                      "safely; save to a new directory");
  }
  PosixStorage::sync_directory(PosixStorage::parent(directory));
  if (replaces) {
    PosixStorage::remove_all(temporary);
  }
}

}  // namespace shardmesh::inline v0::detail
