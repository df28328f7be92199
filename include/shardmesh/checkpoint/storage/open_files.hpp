// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {

/// Files that are read in turns. A checkpoint has a file for each rank that saved it, and each rank
/// that loads may read from all of them; so only a few stay open, those that were used last.
class OpenFiles {
 public:
  /// So many are open at a time.
  static constexpr std::size_t most = 4;

  /// The file of a name in a directory, which is opened if it is not open.
  /// @throws IoError as `File::open`, and if the file has become another one since it was first
  ///         opened.
  [[nodiscard]] std::shared_ptr<File const> open(Directory const& directory,
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

 private:
  using Version = std::tuple<std::uint64_t, std::int64_t, std::uint64_t>;  ///< size, time, number

  std::vector<std::shared_ptr<File const>> files_;  ///< by last use, the latest at the end
  std::unordered_map<std::string, Version> versions_;
};

}  // namespace v0
}  // namespace shardmesh
