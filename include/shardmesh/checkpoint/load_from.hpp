// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <functional>
#include <memory>

#include <shardmesh/checkpoint/detail/any_catalog.hpp>
#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/range.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// A whole load, from whatever catalog.
/// @param open  makes this rank's; again if what it reads was replaced meanwhile.
template <Catalog C>
CheckpointReport load_until_whole(AnyRanks const& comm,
                                  std::function<std::unique_ptr<C>()> const& open,
                                  StateDict& dict,
                                  LoadOptions const& options);

}  // namespace detail

/// Loads a state dict in place from a catalog that `open()` makes on each rank. Everything is read
/// and checked, on all ranks, before the first tensor is written: a load that fails on any rank
/// leaves every tensor on every rank as it was.
///
/// Tensors get the part that their own layout asks for, whatever layout was saved. Each item is read
/// by one of the ranks that want any of it, balanced by bytes, checked there, and passed on to the
/// others (`plan_load`). Plain values of the dict are replaced. Ranks may want different keys.
///
/// Optimizers whose state is in the dict get all of their options, those that they do not know
/// included, which they carry along; groups are found by the names of their parameters. A number that
/// was saved as a 0-d tensor loads into a plain one and the reverse; containers are found whether
/// they were saved whole or element by element. Of tied tensors one name suffices.
///
/// Ranks whose catalogs have an `identity()` must have equal ones. A catalog whose files are replaced while it is
/// read is opened again.
///
/// @returns what was done, on this rank.
/// @throws KeyError, ShapeError, InvalidArgument (dtype; a partial tensor; an option of an optimizer that
///         makes no sense; tied tensors with different values), CorruptError, IoError on ranks that see the problem, RankFailed on the others; MismatchError on all if ranks see different checkpoints or have other options, before anything is read.
/// @collective over `comm`, with equal options.
template <Communicator Comm, class Open>
CheckpointReport load_from(Comm const& comm,
                           Open&& open,
                           StateDict& dict,
                           LoadOptions const& options = {}) {
  detail::Range const range("load");
  return detail::load_until_whole(detail::ranks_of_load(comm), detail::any_catalog_of(open), dict,
                                  options);
}

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/detail/load_from_bodies.hpp>
#endif
