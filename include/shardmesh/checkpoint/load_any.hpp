// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>
#include <utility>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/load_from.hpp>
#include <shardmesh/checkpoint/safetensors.hpp>

namespace shardmesh::inline v0 {

/// Calls `use(catalog)` with the catalog of whatever `path` is: a directory with `.metadata` (both
/// of PyTorch's serialization formats), a safetensors file, or a directory of such.
template <class Use>
decltype(auto) with_catalog(std::string const& path, Use&& use) {
  if (PosixStorage::exists(path + "/.metadata") || !PosixStorage::exists(path)) {
    DcpCatalog<SafetensorsBlobs> catalog(path);
    return std::forward<Use>(use)(catalog);
  }
  SafetensorsCatalog catalog(path);
  return std::forward<Use>(use)(catalog);
}

/// `load` for any format: PyTorch's checkpoint directories, safetensors files and directories. Needs
/// nlohmann-json.
/// @throws what `load` throws.
/// @collective over `comm`.
template <Communicator Comm>
void load_any(Comm const& comm, std::string const& path, StateDict& dict) {
  bool const is_dcp = PosixStorage::exists(path + "/.metadata") || !PosixStorage::exists(path);
  if (is_dcp) {
    load_from(comm, [&] { return DcpCatalog<SafetensorsBlobs>(path); }, dict);
  } else {
    load_from(comm, [&] { return SafetensorsCatalog(path); }, dict);
  }
}

}  // namespace shardmesh::inline v0
