// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/load_from.hpp>

namespace shardmesh::inline v0 {

/// Loads a state dict in place from a directory that PyTorch's `torch.distributed.checkpoint` or
/// `save` wrote. See `load_from` for what holds; see `load_any` for safetensors.
///
/// @code
///   sm::StateDict state{{"model", sm::state_dict(net)}};
///   sm::load(world, "checkpoint", state);  // any mesh, any placements
/// @endcode
///
/// @throws IoError (no such directory, no checkpoint), KeyError, ShapeError, InvalidArgument
///         (dtype), CorruptError, UnsupportedError; RankFailed on ranks that had no problem.
/// @collective over `comm`.
template <Communicator Comm>
void load(Comm const& comm, std::string const& directory, StateDict& dict) {
  load_from(comm, [&] { return DcpCatalog<>(directory); }, dict);
}

}  // namespace shardmesh::inline v0
