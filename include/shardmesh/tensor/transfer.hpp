// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <type_traits>

#include <shardmesh/tensor/dist_tensor.hpp>
#include <shardmesh/tensor/redistribute.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// @throws InvalidArgument if two meshes do not number their ranks in one world.
template <class Mesh, class Other>
void require_one_world(char const* operation, Mesh const& from, Other const& to) {
  static_assert(std::is_same_v<typename Mesh::communicator_type, typename Other::communicator_type>,
                "shardmesh::transfer: both meshes must be made over communicators of one type");
  if (from.world().world_ranks() != to.world().world_ranks()) {
    throw InvalidArgument(concat("shardmesh::", operation, ": ", to_string(from.description()),
                                 " and ", to_string(to.description()),
                                 " were made over different communicators; make both over one that "
                                 "has all their ranks"));
  }
}

}  // namespace detail

/// Moves a tensor to another mesh: from the ranks that train to those that infer, from many to few, or to
/// the same ranks in another order. The meshes may have any shapes and share all, some or none of
/// their ranks. Every box goes straight from a holder to its place; replicas share the sending; what a
/// rank has already it does not receive. A partial tensor is reduced on its own mesh first.
///
/// @param source a tensor; on ranks outside its mesh the handle without elements that they have of it.
/// @param mesh   where to, made over the same communicator as the mesh of `source`.
/// @param target one placement for each dimension of `mesh`, none of them partial.
/// @param stream all device work is ordered on it; the call does not wait for the device.
/// @returns a tensor on `mesh` with the same shape and values, never sharing elements with `source`; on
///          ranks outside `mesh` a handle without elements.
/// @throws InvalidArgument for a partial target, placements that do not fit the shape, or meshes over
///         different communicators; nothing is communicated then. MismatchError if ranks bring different
///         types, shapes, meshes or placements (see `Checks` for NCCL).
/// @collective over `mesh.world()`: ranks of neither mesh call it too.
template <AnyDistTensor Source, class Mesh, PlacementTuple Q>
[[nodiscard]] auto transfer(Source const& source,
                            Mesh const& mesh,
                            Q const& target,
                            typename Source::Stream stream = {}) {
  using Result = DistTensor<typename Source::value_type, Mesh, Q, typename Source::memory_space>;
  detail::require_one_world("transfer", source.mesh(), mesh);
  Layout const layout(source.shape(), mesh.shape(), to_list(target));
  auto const& world = mesh.world();
  auto const plan =
      mesh.plans().get(source.mesh().holding(source.layout()), mesh.holding(layout), world.rank());
  return Result(mesh, layout, detail::run(*plan, world, source.to_local(), "transfer", stream));
}

}  // namespace v0
}  // namespace shardmesh
