// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/load_from.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Bytes that rank 0 reads, on every rank.
template <Communicator Comm, class Read>
[[nodiscard]] std::string read_once(Comm const& comm, Read&& read) {
  format::Bytes bytes;
  together(comm, "shardmesh::load", [&] {
    if (comm.rank() == 0) {
      bytes = read();
    }
  });
  return std::move(all_gather_text(comm, format::as_text(bytes)).front());
}

template <class Blobs, Communicator Comm>
CheckpointReport load_dcp(Comm const& comm,
                          std::string const& directory,
                          StateDict& dict,
                          LoadOptions const& options) {
  std::string const metadata =
      read_once(comm, [&] { return DcpCatalog<Blobs>::read_metadata(directory); });
  return load_from(
      comm, [&] { return DcpCatalog<Blobs>(directory, format::as_bytes(metadata)); }, dict,
      options);
}

}  // namespace detail

/// Loads a state dict in place from a directory that PyTorch's `torch.distributed.checkpoint` or
/// `save` wrote. See `load_from` for what holds; see `load_any` for safetensors. Rank 0 alone reads
/// the metadata.
///
/// @code
///   sm::StateDict state{{"model", sm::state_dict(net)}};
///   sm::load(world, "checkpoint", state);  // any mesh, any placements
/// @endcode
///
/// @returns what was done, on this rank.
/// @throws IoError (no such directory, no checkpoint), KeyError, ShapeError, InvalidArgument
///         (dtype; a partial tensor), CorruptError, UnsupportedError; RankFailed on ranks that had no problem.
/// @collective over `comm`, with equal options.
template <Communicator Comm>
CheckpointReport load(Comm const& comm,
                      std::string const& directory,
                      StateDict& dict,
                      LoadOptions const& options = {}) {
  return detail::load_dcp<NoBlobs>(comm, directory, dict, options);
}

}  // namespace v0
}  // namespace shardmesh
