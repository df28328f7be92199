// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>

#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/range.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

struct NoBlobs;

namespace detail {

/// Rank 0 alone reads what the directory says; every rank opens it once, and the load compares which one it
/// has got.
template <class Blobs>
CheckpointReport load_dcp(AnyRanks const& comm,
                          std::string const& directory,
                          StateDict& dict,
                          LoadOptions const& options);

}  // namespace detail

/// Loads a state dict in place from a directory that PyTorch's `torch.distributed.checkpoint` or
/// `save` wrote. See `load_from` for what holds; see `load_any` for safetensors. Rank 0 alone reads
/// the metadata.
///
/// A load reads one checkpoint, also if another is saved to its place meanwhile: the one that was there when
/// it began, or, if that is removed before it has been read, the new one from its start. Ranks that find
/// different checkpoints, and data files that are not of the save of `.metadata`, are refused.
///
/// @code
///   sm::StateDict state{{"model", sm::state_dict(net)}};
///   sm::load(world, "checkpoint", state);  // any mesh, any placements
/// @endcode
///
/// @returns what was done, on this rank.
/// @throws IoError (no such directory, no checkpoint; one that is replaced more often than it can be
///         read), MismatchError (ranks find different ones), KeyError, ShapeError, InvalidArgument
///         (dtype; a partial tensor), CorruptError, UnsupportedError; RankFailed on ranks that had no problem.
/// @collective over `comm`, with equal options.
template <Communicator Comm>
CheckpointReport load(Comm const& comm,
                      std::string const& directory,
                      StateDict& dict,
                      LoadOptions const& options = {}) {
  detail::Range const range("load");
  return detail::load_dcp<NoBlobs>(detail::ranks_of_load(comm), directory, dict, options);
}

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/detail/load_bodies.hpp>
#endif
