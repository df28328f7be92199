// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include <shardmesh/layout/same_parts.hpp>
#include <shardmesh/plan/plan.hpp>
#include <shardmesh/tensor/detail/move_words.hpp>
#include <shardmesh/tensor/dist_tensor.hpp>
#include <shardmesh/tensor/execute.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Can every conversion from P to Q be made? Decided by the compiler where both are static.
template <class P, class Q>
consteval bool static_conversion_is_legal() {
  if constexpr (StaticPlacements<P> && StaticPlacements<Q>) {
    return P::rank != Q::rank || conversion_is_legal(P::list(), Q::list());
  } else {
    return true;
  }
}

template <class P, class Q>
consteval bool static_ranks_fit() {
  if constexpr (StaticPlacements<P> && StaticPlacements<Q>) {
    return P::rank == Q::rank;
  } else {
    return true;
  }
}

/// Runs all exchanges of a plan for one tensor; returns the last target.
template <class T, class Space, class Comm>
[[nodiscard]] Tensor<T, Space> run(RankPlan const& made,
                                   Comm const& comm,
                                   Tensor<T, Space> tensor,
                                   char const* operation,
                                   typename Space::Stream stream) {
  Plan const& plan = made.plan;
  MoveWords const words{dtype_of<T>, plan.from(), plan.to()};
  Fingerprint const arguments = words.fingerprint();
  for (std::size_t step = 0; step < plan.steps(); ++step) {
    RankStep const& part = made.steps[step];
    Tensor<T, Space> target(part.target_shape, stream);
    std::array<ExchangeJob, 1> const jobs{
        ExchangeJob{&part, dtype_of<T>, tensor.data(), target.data()}};
    execute<Space>(comm, jobs, Call(operation, Fingerprint(arguments).add(step), words), stream);
    tensor = target;
  }
  return tensor;
}

/// `redistribute` under the name that the user called.
template <AnyDistTensor Source, PlacementTuple Q>
[[nodiscard]] auto redistribute_as(char const* operation,
                                   Source const& source,
                                   Q const& target,
                                   typename Source::Stream stream) {
  using Comm = typename Source::mesh_type::communicator_type;
  using Result = DistTensor<typename Source::value_type, typename Source::mesh_type, Q,
                            typename Source::memory_space>;
  Layout const layout(source.shape(), source.mesh().shape(), to_list(target));
  if (!source.mesh().is_member() || same_parts(source.layout(), layout)) {
    static_cast<void>(make_plan(source.layout(), layout));  // throws for what is not legal
    return Result(source.mesh(), layout, source.to_local());
  }
  Comm const& comm = source.mesh().comm();
  auto const plan = source.mesh().plans().get(source.layout(), layout, comm.rank());
  return Result(source.mesh(), layout, run(*plan, comm, source.to_local(), operation, stream));
}

}  // namespace detail

/// Moves a tensor to other placements on its mesh.
///
/// Each rank keeps what it has and gets the rest straight from the ranks named by
/// `make_plan(source.layout(), ...)`; partial values are reduced in ascending rank order.
///
/// @param target one placement per mesh dimension, static or not.
/// @param stream all device work is ordered on it; the call does not wait for the device.
/// @returns a tensor with the target placements, the same global shape and the same values. It
///          shares its elements with `source` only if nothing has to move, as between placements that
///          differ along mesh dimensions of one rank alone (`same_parts`).
/// @throws InvalidArgument for a partial target that the source does not have, or placements that
///         do not fit the shape; nothing is communicated then. MismatchError if ranks bring different
///         types, shapes or placements (see `Checks` for NCCL).
/// @collective over source.mesh().
template <AnyDistTensor Source, PlacementTuple Q>
[[nodiscard]] auto redistribute(Source const& source,
                                Q const& target,
                                typename Source::Stream stream = {}) {
  using P = typename Source::placements_type;
  static_assert(detail::static_ranks_fit<P, Q>(),
                "shardmesh::redistribute: source and target must have one placement for each mesh "
                "dimension");
  static_assert(detail::static_conversion_is_legal<P, Q>(),
                "shardmesh::redistribute: a Partial target placement is legal only where the "
                "source has the same one; reduce to Shard or Replicate instead");
  return detail::redistribute_as("redistribute", source, target, stream);
}

/// The whole tensor on every rank of its mesh.
/// @collective over source.mesh().
template <AnyDistTensor Source>
[[nodiscard]] Tensor<typename Source::value_type, typename Source::memory_space> full_tensor(
    Source const& source, typename Source::Stream stream = {}) {
  PlacementList const replicated(source.mesh().shape().size(), Placement{});
  return detail::redistribute_as("full_tensor", source, replicated, stream).to_local();
}

/// The whole tensor on the first rank of its mesh only; the others get shape (0) and allocate
/// nothing.
/// @collective over source.mesh().
template <AnyDistTensor Source>
[[nodiscard]] Tensor<typename Source::value_type, typename Source::memory_space> gather_to_first(
    Source const& source, typename Source::Stream stream = {}) {
  if (!source.mesh().is_member()) {
    return {};
  }
  Holding const first = Holding::whole(source.shape(), 0);
  auto const& comm = source.mesh().comm();
  auto const plan = source.mesh().plans().get(source.layout(), first, comm.rank());
  return detail::run(*plan, comm, source.to_local(), "gather_to_first", stream);
}

}  // namespace v0
}  // namespace shardmesh
