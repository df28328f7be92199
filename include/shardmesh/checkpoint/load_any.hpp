// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>
#include <utility>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_from.hpp>
#include <shardmesh/checkpoint/safetensors.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// What is not there is looked for by the one that names it in its error.
/// @throws IoError if the storage cannot be looked at.
[[nodiscard]] inline bool is_dcp(std::string const& path) {
  return PosixStorage::exists(path + "/.metadata") || !PosixStorage::exists(path);
}

}  // namespace detail

/// Calls `use(catalog)` with the catalog of whatever `path` is: a directory with `.metadata` (both
/// of PyTorch's serialization formats), a safetensors file, an index of such, or a directory with them.
template <class Use>
decltype(auto) with_catalog(std::string const& path, Use&& use) {
  if (detail::is_dcp(path)) {
    DcpCatalog<SafetensorsBlobs> catalog(path);
    return std::forward<Use>(use)(catalog);
  }
  SafetensorsCatalog catalog(path);
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
  if (all_gather_value(comm, is_dcp ? 1 : 0).front() == 1) {
    return detail::load_dcp<SafetensorsBlobs>(comm, path, dict, options);
  }
  return load_from(comm, [&] { return SafetensorsCatalog(path); }, dict, options);
}

}  // namespace v0
}  // namespace shardmesh
