// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/storage/open_files.hpp.

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/open_files.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {

SHARDMESH_INLINE std::shared_ptr<File const> OpenFiles::open(Directory const& directory,
                                                             std::string const& name) {
  std::string const path = directory.path_of(name);
  auto const found = std::find_if(files_.begin(), files_.end(),
                                  [&](auto const& file) { return file->path() == path; });
  if (found != files_.end()) {
    std::rotate(found, found + 1, files_.end());
    return files_.back();
  }
  if (files_.size() == most) {
    files_.erase(files_.begin());
  }
  File file = directory.open_file(name);
  Version const now{file.size(), file.modified(), file.number()};
  auto const first = versions_.try_emplace(path, now).first;
  if (first->second != now) {
    throw IoError(path, ESTALE,
                  "shardmesh: " + path +
                      " was changed or replaced while it was read; load again when nobody writes "
                      "it");
  }
  files_.push_back(std::make_shared<File const>(std::move(file)));
  return files_.back();
}

}  // namespace v0
}  // namespace shardmesh
