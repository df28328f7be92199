// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/file.hpp>
#include <shardmesh/core/config.hpp>

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
                                                 std::string const& name);

 private:
  using Version = std::tuple<std::uint64_t, std::int64_t, std::uint64_t>;  ///< size, time, number

  std::vector<std::shared_ptr<File const>> files_;  ///< by last use, the latest at the end
  std::unordered_map<std::string, Version> versions_;
};

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/storage/detail/open_files_bodies.hpp>
#endif
