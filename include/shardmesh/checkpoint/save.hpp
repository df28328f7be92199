// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/save_options.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// How far a save has come on this rank; read by other threads.
struct SaveCounters {
  std::atomic<std::uint64_t> total{0};  ///< bytes of items; 0 until they are planned
  std::atomic<std::uint64_t> done{0};
};

/// A small file of text that lies beside a checkpoint's own, and appears with them. The manifest does
/// not list it, since it may be replaced later.
struct Note {
  std::string name;
  std::string text;
};

/// A whole save.
/// @param problem  why this rank cannot take part; all ranks then throw.
/// @param note     rank 0's counts.
template <Communicator Comm>
void run_save(Comm const& comm,
              std::string directory,
              StateDict const& dict,
              SaveOptions const& options,
              SaveCounters& counters,
              std::exception_ptr const& problem = nullptr,
              std::optional<Note> const& note = std::nullopt);

}  // namespace detail

/// Saves a state dict as a directory that `torch.distributed.checkpoint.load` and `load` read.
///
/// Every rank writes what it holds into a file of its own; what several ranks hold is written once,
/// by the one with the least to write.
///
/// A key has one value. Replicas of one mesh are taken to be equal; where ranks hold plain tensors or
/// plain values of one name (or tensors of different meshes), all of them are compared, bit by bit, and
/// must be the same: what is each rank's own (a state of a random generator, a position in the data)
/// needs a name for each rank. Groups of an optimizer (`param_groups`) whose parameters differ between ranks
/// are saved with the names of all of them.
///
/// The checkpoint appears under `directory` when it is complete and on the disk: until then an older
/// one stays readable there, and a failure on any rank leaves it untouched.
///
/// Only files of a checkpoint are replaced: `.metadata`, the manifest, the metric, `__*_*.distcp` and
/// other files that the older `.metadata` names. Everything else that lies in the directory
/// (`lr_scheduler.json`, `hf_assets/`) is there at every moment, before and after. If it cannot be kept (a
/// file system that is mounted there), the save is refused and names it.
///
/// A link (`latest -> step-20`) stays one: what it leads to is replaced, or made.
///
/// What an interrupted save has left behind is removed by the next one to the same directory. Of two jobs that
/// save to one directory at the same time the second is refused, by a lock of a hidden file beside it that ends with its
/// holder (`.run.save-lock`). Where the file system has no locks they may make each other's saves fail.
///
/// @param directory  the same on all ranks, on a file system that all see; parents are made, but not those of what a link
///                   leads to.
/// @param options    the same on all ranks. With `Containers::whole` groups of an optimizer must be the same, too.
/// @throws InvalidArgument (a partial tensor, a directory that is no checkpoint, "." or ".."), ShapeError (ranks
///         hold different things under one name), MismatchError (different values, directories or options),
///         UnsupportedError (elements that PyTorch has not), IoError (EBUSY: another save is going on); RankFailed on ranks that had no
///         problem.
/// @collective over `comm`.
template <Communicator Comm>
void save(Comm const& comm,
          std::string directory,
          StateDict const& dict,
          SaveOptions const& options = {}) {
  detail::SaveCounters counters;
  detail::run_save(detail::AnyRanks(comm), std::move(directory), dict, options, counters);
}

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/detail/save_bodies.hpp>
#endif
