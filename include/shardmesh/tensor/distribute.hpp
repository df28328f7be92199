// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <shardmesh/tensor/dist_tensor.hpp>
#include <shardmesh/tensor/redistribute.hpp>

namespace shardmesh {
inline namespace v0 {

/// Whose data `distribute` takes.
enum class DataSource : std::uint8_t {
  first_rank,  ///< the first rank of the mesh has the data and sends each rank its part
  own,         ///< every rank has the same data and cuts its own part, without communication
};

namespace detail {

/// Cuts this rank's part out of a whole tensor.
template <class T, class Space>
[[nodiscard]] Tensor<T, Space> cut_local(Tensor<T, Space> const& full,
                                         Layout const& layout,
                                         Coordinate const& coordinate,
                                         typename Space::Stream stream) {
  Tensor<T, Space> local(layout.local_shape(coordinate), stream);
  for (Piece const& piece : layout.pieces(coordinate)) {
    Space::copy(copy_between(full.data(), {piece.box.offset, full.shape()}, local.data(),
                             {piece.local, local.shape()}, piece.box.extent, sizeof(T)),
                stream);
  }
  return local;
}

/// Placements that are known at compile time, against the mesh and, where it is known, the number of the
/// tensor's dimensions.
template <class P, class Mesh, int tensor_dims = static_cast<int>(max_rank)>
constexpr void check_static_placements() {
  if constexpr (StaticPlacements<P>) {
    static_assert(P::rank == Mesh::rank_of_mesh,
                  "shardmesh: there must be one placement for each dimension of the mesh; add "
                  "Replicate for the dimensions that do not cut the tensor");
    constexpr bool dims_fit = [] {
      for (Placement const& placement : P::list()) {
        if (placement.is_shard() && placement.dim >= tensor_dims) {
          return false;
        }
      }
      return true;
    }();
    static_assert(
        dims_fit,
        "shardmesh: Shard<Dim> names a dimension that the tensor has not; Dim counts from 0");
  }
}

[[nodiscard]] constexpr bool any_partial(PlacementList const& placements) {
  for (Placement const& placement : placements) {
    if (placement.is_partial()) {
      return true;
    }
  }
  return false;
}

}  // namespace detail

/// Distributes a whole tensor over a mesh.
///
/// @param full   the whole tensor; with `DataSource::first_rank` only the first rank's is read, the
///               others may pass an empty one.
/// @param shape  global shape; must be equal on all ranks.
/// @throws InvalidArgument if a placement is partial: use `from_local` to make partial tensors.
/// @throws ShapeError if the tensor that is read does not have the given shape.
/// @collective over `mesh`.
template <Element T, MemorySpace Space, class Mesh, PlacementTuple P>
[[nodiscard]] DistTensor<T, Mesh, P, Space> distribute(Tensor<T, Space> const& full,
                                                       Shape const& shape,
                                                       Mesh const& mesh,
                                                       P const& placement_tuple,
                                                       DataSource from = DataSource::first_rank,
                                                       typename Space::Stream stream = {}) {
  detail::check_static_placements<P, Mesh>();
  if constexpr (StaticPlacements<P>) {
    static_assert(!detail::any_partial(P::list()),
                  "shardmesh::distribute: a tensor cannot be cut into partial terms; make partial "
                  "tensors with from_local");
  }
  PlacementList const list = to_list(placement_tuple);
  Layout const layout(shape, mesh.shape(), list);
  if (detail::any_partial(list)) {
    throw InvalidArgument("shardmesh::distribute: cannot cut a tensor into " + to_string(list) +
                          "; make partial tensors with from_local");
  }
  if (!mesh.is_member()) {
    return {mesh, layout, Tensor<T, Space>()};
  }
  bool const reads = from == DataSource::own || mesh.comm().rank() == 0;
  std::string problem;
  if (reads && !(full.shape() == shape)) {
    problem = "shardmesh::distribute: the tensor has shape " + to_string(full.shape()) +
              ", the shape given is " + to_string(shape) + "; they must be equal";
  }
  Holding const first = Holding::whole(shape, 0);
  Holding const all = layout;
  detail::MoveWords const words{dtype_of<T>, first, all};
  throw_together<ShapeError>(
      mesh.comm(), problem,
      Call("distribute", words.fingerprint().add(static_cast<std::uint64_t>(from)), words));
  if (from == DataSource::own) {
    return {mesh, layout, detail::cut_local(full, layout, mesh.coordinate(), stream)};
  }
  auto const plan = mesh.plans().get(first, all, mesh.comm().rank());
  return {mesh, layout, detail::run(*plan, mesh.comm(), full, "distribute", stream)};
}

/// As above, with a shape as a list in braces: that static placements fit it is checked at compile time.
template <Element T, MemorySpace Space, class Mesh, StaticPlacements P, std::size_t N>
[[nodiscard]] DistTensor<T, Mesh, P, Space> distribute(Tensor<T, Space> const& full,
                                                       index_t const (&shape)[N],
                                                       Mesh const& mesh,
                                                       P const& placement_tuple,
                                                       DataSource from = DataSource::first_rank,
                                                       typename Space::Stream stream = {}) {
  detail::check_static_placements<P, Mesh, static_cast<int>(N)>();
  return distribute(full, Shape(shape, shape + N), mesh, placement_tuple, from, stream);
}

/// As above; the shape is that of `full`, which every rank must pass.
template <Element T, MemorySpace Space, class Mesh, PlacementTuple P>
[[nodiscard]] DistTensor<T, Mesh, P, Space> distribute(Tensor<T, Space> const& full,
                                                       Mesh const& mesh,
                                                       P const& placement_tuple,
                                                       DataSource from = DataSource::first_rank,
                                                       typename Space::Stream stream = {}) {
  return distribute(full, full.shape(), mesh, placement_tuple, from, stream);
}

namespace detail {

/// The global shape that local shapes of all ranks add up to: along each mesh dimension that shards
/// a tensor dimension, the extents add up.
template <class Mesh>
[[nodiscard]] Shape infer_shape(Mesh const& mesh, Shape const& local, PlacementList const& list) {
  auto const locals = all_gather_value(mesh.comm(), local, "from_local");
  Shape shape = locals.front();
  ShardOrder const order = left_to_right(normalised(list, local.size(), mesh.shape().size()));
  for (std::size_t d = 0; d < shape.size(); ++d) {
    index_t extent = 0;
    for (std::size_t rank = 0; rank < locals.size(); ++rank) {
      // Count each shard once: ranks at 0 in all mesh dimensions that do not cut dimension d.
      Coordinate at = unravel(static_cast<index_t>(rank), mesh.shape());
      for (Cut const& cut : order) {
        if (static_cast<std::size_t>(cut.tensor_dim) == d) {
          at[static_cast<std::size_t>(cut.mesh_dim)] = 0;
        }
      }
      extent += ravel(at, mesh.shape()) == 0 && d < locals[rank].size() ? locals[rank][d] : 0;
    }
    shape[d] = extent;
  }
  return shape;
}

}  // namespace detail

/// Makes a distributed tensor of the local parts that ranks have. Nothing is moved.
///
/// @param local this rank's part, or its contribution where a placement is partial.
/// @param shape global shape; if not given it is found by adding up the local shapes of all ranks.
/// @throws ShapeError on every rank, naming the first rank that is wrong, if a local shape is not
///         what the chunk rule gives that rank: uneven parts must follow it.
/// @collective over `mesh`.
template <Element T, MemorySpace Space, class Mesh, PlacementTuple P>
[[nodiscard]] DistTensor<T, Mesh, P, Space> from_local(Tensor<T, Space> const& local,
                                                       Mesh const& mesh,
                                                       P const& placement_tuple,
                                                       std::optional<Shape> shape = std::nullopt) {
  detail::check_static_placements<P, Mesh>();
  PlacementList const list = to_list(placement_tuple);
  if (!mesh.is_member()) {
    return {mesh, Layout(shape.value_or(Shape{0}), mesh.shape(), list), Tensor<T, Space>()};
  }
  Shape const global = shape ? *shape : detail::infer_shape(mesh, local.shape(), list);
  Layout const layout(global, mesh.shape(), list);
  Shape const expected = layout.local_shape(mesh.coordinate());
  std::string problem;
  if (!(expected == local.shape())) {
    problem = "shardmesh::from_local: the local tensor has shape " + to_string(local.shape()) +
              ", but the chunk rule gives this rank " + to_string(expected) + " of " +
              to_string(layout) + "; pass the global shape if it is not the sum of the parts";
  }
  auto const words = [&layout] {
    return std::string(to_string(dtype_of<T>)) + " " + to_string(layout);
  };
  throw_together<ShapeError>(mesh.comm(), problem,
                             Call("from_local",
                                  Fingerprint()
                                      .add(static_cast<std::uint64_t>(dtype_of<T>))
                                      .add(fingerprint(layout).value()),
                                  words));
  return {mesh, layout, local};
}

}  // namespace v0
}  // namespace shardmesh
