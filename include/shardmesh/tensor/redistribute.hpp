// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
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

/// Runs all exchanges of a plan for one tensor, the last into `result`.
template <class T, class Space, class Comm>
void run_into(RankPlan const& made,
              Comm const& comm,
              Tensor<T, Space> tensor,
              Tensor<T, Space> const& result,
              char const* operation,
              typename Space::Stream stream) {
  MoveWords const words{dtype_of<T>, made.plan.from(), made.plan.to()};
  Fingerprint const arguments =
      Fingerprint(made.fingerprint).add(static_cast<std::uint64_t>(dtype_of<T>));
  for (std::size_t step = 0; step < made.steps.size(); ++step) {
    RankStep const& part = made.steps[step];
    bool const last = step + 1 == made.steps.size();
    Tensor<T, Space> target = last ? result : Tensor<T, Space>(part.target_shape, stream);
    std::array<ExchangeJob, 1> const jobs{
        ExchangeJob{&part, dtype_of<T>, tensor.data(), target.data(), true}};
    execute<Space>(comm, jobs, Call(operation, Fingerprint(arguments).add(step), words), stream);
    tensor = std::move(target);
  }
}

/// The same into a tensor that it makes.
template <class T, class Space, class Comm>
[[nodiscard]] Tensor<T, Space> run(RankPlan const& made,
                                   Comm const& comm,
                                   Tensor<T, Space> const& tensor,
                                   char const* operation,
                                   typename Space::Stream stream) {
  Tensor<T, Space> result(made.steps.back().target_shape, stream);
  run_into(made, comm, tensor, result, operation, stream);
  return result;
}

/// Have two stretches of memory a byte in common?
[[nodiscard]] inline bool overlap(void const* a,
                                  std::size_t a_bytes,
                                  void const* b,
                                  std::size_t b_bytes) noexcept {
  auto const first = reinterpret_cast<std::uintptr_t>(a);
  auto const second = reinterpret_cast<std::uintptr_t>(b);
  return a_bytes > 0 && b_bytes > 0 && first < second + b_bytes && second < first + a_bytes;
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

/// Moves a tensor to the placements of another, into its elements: `redistribute` without an allocation, for
/// loops that have a place for the result.
///
/// @param source, result  on the same mesh, of the same shape and element type; they must not share elements,
///                        unless both are the same part of the same memory.
/// @throws InvalidArgument if they have different shapes or meshes, share some elements, or as `redistribute`;
///         nothing is communicated then. MismatchError as `redistribute`.
/// @collective over source.mesh().
template <AnyDistTensor Source, AnyDistTensor Result>
void redistribute_into(Source const& source,
                       Result const& result,
                       typename Source::Stream stream = {}) {
  using Space = typename Source::memory_space;
  static_assert(
      std::is_same_v<typename Source::value_type, typename Result::value_type> &&
          std::is_same_v<typename Source::mesh_type, typename Result::mesh_type> &&
          std::is_same_v<Space, typename Result::memory_space>,
      "shardmesh::redistribute_into: both tensors must have the same element type, type of "
      "mesh and memory space");
  using P = typename Source::placements_type;
  using Q = typename Result::placements_type;
  static_assert(detail::static_ranks_fit<P, Q>() && detail::static_conversion_is_legal<P, Q>(),
                "shardmesh::redistribute_into: a Partial target placement is legal only where the "
                "source has the same one; reduce to Shard or Replicate instead");
  if (!(source.mesh() == result.mesh())) {
    throw InvalidArgument("shardmesh::redistribute_into: the source is on " +
                          to_string(source.mesh().description()) + ", the result on " +
                          to_string(result.mesh().description()) +
                          "; use transfer to send it to another mesh");
  }
  auto const& from = source.to_local();
  auto const& to = result.to_local();
  bool const same = from.data() == to.data() && from.size() == to.size();
  bool const parts = same_parts(source.layout(), result.layout());
  if (!(same && parts) && detail::overlap(from.data(), from.bytes(), to.data(), to.bytes())) {
    throw InvalidArgument("shardmesh::redistribute_into: source and result share elements; give it "
                          "a result of its own");
  }
  if (!source.mesh().is_member() || parts) {
    static_cast<void>(make_plan(source.layout(), result.layout()));  // throws for what is not legal
    if (!same) {
      auto const bytes = static_cast<index_t>(from.bytes());
      Space::copy({from.data(), to.data(), Shape{bytes}, Shape{1}, Shape{1}, 1}, stream);
    }
    return;
  }
  auto const& comm = source.mesh().comm();
  auto const plan = source.mesh().plans().get(source.layout(), result.layout(), comm.rank());
  detail::run_into(*plan, comm, from, to, "redistribute_into", stream);
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
