// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include <shardmesh/layout/layout.hpp>
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// A tensor of which each rank of a mesh holds a part.
///
/// @tparam T     element type.
/// @tparam Mesh  a `DeviceMesh`.
/// @tparam P     placements: `Placements<...>` (static: illegal conversions do not compile) or
///               `PlacementList` (known at run time; the same algebra, errors are thrown).
/// @tparam Space memory space of the local part.
///
/// A handle: copies share the local elements. On a rank outside the mesh the local shape is (0).
template <Element T, class Mesh, PlacementTuple P = PlacementList, MemorySpace Space = HostMemory>
class DistTensor {
 public:
  using value_type = T;
  using mesh_type = Mesh;
  using placements_type = P;
  using memory_space = Space;
  using Stream = typename Space::Stream;

  /// From a local part that fits its place in `layout`; users call `from_local` or `distribute`.
  /// @throws ShapeError if the shape of `local` is not that of the calling rank's part.
  DistTensor(Mesh mesh, Layout layout, Tensor<T, Space> local);

  [[nodiscard]] Mesh const& mesh() const noexcept { return mesh_; }
  [[nodiscard]] Layout const& layout() const noexcept { return layout_; }
  /// Global shape.
  [[nodiscard]] Shape const& shape() const noexcept { return layout_.shape(); }
  [[nodiscard]] PlacementList const& placements() const noexcept { return layout_.placements(); }
  [[nodiscard]] static constexpr DType dtype() noexcept { return dtype_of<T>; }

  /// This rank's part; a view, not a copy.
  [[nodiscard]] Tensor<T, Space> const& to_local() const noexcept { return local_; }

  /// Global offset of this rank's part (semantics: `Layout::local_offset`); () outside the mesh.
  [[nodiscard]] Shape local_offset() const {
    return mesh_.is_member() ? layout_.local_offset(mesh_.coordinate()) : Shape{};
  }

  /// The same tensor with its local part in another memory space: only where the bytes live changes.
  template <MemorySpace Target>
  [[nodiscard]] DistTensor<T, Mesh, P, Target> to(CopyStream<Target, Space> stream = {}) const {
    return {mesh_, layout_, local_.template clone<Target>(stream)};
  }

  /// The local shape that `layout` gives the calling rank; (0) outside the mesh.
  [[nodiscard]] static Shape expected_local_shape(Mesh const& mesh, Layout const& layout) {
    return mesh.is_member() ? layout.local_shape(mesh.coordinate()) : Shape{0};
  }

 private:
  Mesh mesh_;
  Layout layout_;
  Tensor<T, Space> local_;
};

template <Element T, class Mesh, PlacementTuple P, MemorySpace Space>
DistTensor<T, Mesh, P, Space>::DistTensor(Mesh mesh, Layout layout, Tensor<T, Space> local)
    : mesh_(std::move(mesh)), layout_(layout), local_(std::move(local)) {
  if (!(local_.shape() == expected_local_shape(mesh_, layout_))) {
    throw ShapeError("shardmesh::DistTensor: the local tensor has shape " +
                     to_string(local_.shape()) + ", but this rank's part of " + to_string(layout_) +
                     " has shape " + to_string(expected_local_shape(mesh_, layout_)));
  }
}

namespace detail {

template <class T>
struct IsDistTensor : std::false_type {};
template <class T, class Mesh, class P, class Space>
struct IsDistTensor<DistTensor<T, Mesh, P, Space>> : std::true_type {};

template <class T>
struct IsTensor : std::false_type {};
template <class T, class Space>
struct IsTensor<Tensor<T, Space>> : std::true_type {};

}  // namespace detail

/// Any `DistTensor`.
template <class T>
concept AnyDistTensor = detail::IsDistTensor<std::remove_cvref_t<T>>::value;

/// Any plain `Tensor`.
template <class T>
concept AnyPlainTensor = detail::IsTensor<std::remove_cvref_t<T>>::value;

}  // namespace v0
}  // namespace shardmesh
