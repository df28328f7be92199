// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>
#include <utility>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/detail/dcp_catalog_bodies.hpp>
#include <shardmesh/checkpoint/detail/load_bodies.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_from.hpp>
#include <shardmesh/checkpoint/safetensors.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// What is not there is looked for by the one that names it in its error.
/// @throws IoError if the storage cannot be looked at.
[[nodiscard]] inline bool is_dcp(std::string const& path) {
  if (!PosixStorage::exists(path)) {
    return true;
  }
  if (!PosixStorage::exists(path + "/.")) {
    return false;  // a file
  }
  return read_until_whole([&] {
    Directory const directory = Directory::open(path);
    bool const found = directory.has(".metadata");
    if (!found && !directory.is_current()) {
      throw Replaced(path, "shardmesh: " + path + " was replaced while it was looked at");
    }
    return found;
  });
}

}  // namespace detail

/// Calls `use(catalog)` with the catalog of whatever `path` is: a directory with `.metadata` (both
/// of PyTorch's serialization formats), a safetensors file, an index of such, or a directory with them.
template <class Use>
decltype(auto) with_catalog(std::string const& path, Use&& use) {
  if (detail::is_dcp(path)) {
    auto catalog = detail::read_until_whole([&] { return DcpCatalog<SafetensorsBlobs>(path); });
    return std::forward<Use>(use)(catalog);
  }
  auto catalog = detail::read_until_whole([&] { return SafetensorsCatalog(path); });
  return std::forward<Use>(use)(catalog);
}

/// `load` for any format: PyTorch's checkpoint directories, safetensors files, their indexes and
/// directories. Needs nlohmann-json.
/// @throws what `load` throws.
/// @collective over `comm`.
template <Communicator Comm>
CheckpointReport load_any(Comm const& comm,
                          std::string const& path,
                          StateDict& dict,
                          LoadOptions const& options = {}) {
  bool is_dcp = false;
  detail::together(comm, "shardmesh::load_any", [&] {
    if (comm.rank() == 0) {
      is_dcp = detail::is_dcp(path);
    }
  });
  if (all_gather_value(comm, is_dcp ? 1 : 0, "load_any").front() == 1) {
    return detail::load_dcp<SafetensorsBlobs>(detail::ranks_of_load(comm), path, dict, options);
  }
  return load_from(comm, [&] { return SafetensorsCatalog(path); }, dict, options);
}

}  // namespace v0
}  // namespace shardmesh
