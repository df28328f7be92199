// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/interop/foreign_tensor.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/tensor/local_part.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// The mdspan of any library: `cuda::std`, `std` (C++23), Kokkos. This header includes none of them.
template <class M>
concept Mdspan = requires(M const& m, typename M::index_type i) {
  typename M::extents_type;
  typename M::mapping_type;
  typename M::layout_type;
  { M::rank() } -> std::convertible_to<std::size_t>;
  { m.data_handle() } -> std::convertible_to<typename M::element_type const*>;
  { m.extent(0) } -> std::convertible_to<index_t>;
  { M::static_extent(0) } -> std::convertible_to<std::size_t>;
};

namespace detail {

/// @throws ShapeError if an mdspan of this type cannot have the shape.
template <class M>
void check_mdspan_shape(Shape const& shape) {
  if (shape.size() != M::rank()) {
    throw ShapeError(concat("shardmesh::to_mdspan: the local part has shape ", to_string(shape),
                            ", asked for as an mdspan of ", std::to_string(M::rank()),
                            " dimensions; ask for ", std::to_string(shape.size())));
  }
  for (std::size_t d = 0; d < shape.size(); ++d) {
    std::size_t const fixed = M::static_extent(d);
    if (fixed != static_cast<std::size_t>(-1) && std::cmp_not_equal(fixed, shape[d])) {
      throw ShapeError(concat("shardmesh::to_mdspan: the local part has shape ", to_string(shape),
                              ", the mdspan fixes dimension ", std::to_string(d), " to ",
                              std::to_string(fixed), "; leave it open (dextents)"));
    }
  }
  using Index = typename M::index_type;
  if (std::cmp_greater(volume(shape), std::numeric_limits<Index>::max())) {
    throw ShapeError(concat("shardmesh::to_mdspan: ", std::to_string(volume(shape)),
                            " elements are more than the mdspan's type of indices counts; take a "
                            "larger one, as shardmesh::index_t"));
  }
}

template <class M, class T, std::size_t... D>
[[nodiscard]] M make_mdspan(T* data, Shape const& shape, std::index_sequence<D...>) {
  using Index = typename M::index_type;
  typename M::extents_type const extents(static_cast<Index>(shape[D])...);
  return M(data, typename M::mapping_type(extents));
}

}  // namespace detail

/// The local part of a tensor as an mdspan; refers to the same elements, does not keep them.
///
/// @code
///   using Matrix = cuda::std::mdspan<float, cuda::std::dextents<sm::index_t, 2>>;
///   Matrix const w = sm::to_mdspan<Matrix>(weight);
/// @endcode
///
/// @tparam M an mdspan of the tensor's element type, or of that and const, whose layout is row-major.
/// @throws ShapeError if the local part has another number of dimensions, other extents than it fixes, or
///         more elements than its indices count.
template <Mdspan M, AnyTensorType X>
  requires std::same_as<std::remove_const_t<typename M::element_type>, typename X::value_type>
[[nodiscard]] M to_mdspan(X const& tensor) {
  static_assert(
      std::is_constructible_v<typename M::mapping_type, typename M::extents_type> && requires {
        typename M::layout_type::template mapping<typename M::extents_type>;
      }, "shardmesh::to_mdspan: local parts are row-major; ask for an mdspan of layout_right");
  auto const& local = local_part(tensor);
  detail::check_mdspan_shape<M>(local.shape());
  M const result =
      detail::make_mdspan<M>(local.data(), local.shape(), std::make_index_sequence<M::rank()>());
  if constexpr (M::rank() > 0) {
    Shape const strides = row_major_strides(local.shape());
    for (std::size_t d = 0; d < M::rank(); ++d) {
      if (local.shape()[d] > 1 && local.size() > 0 &&
          static_cast<index_t>(result.mapping().stride(static_cast<decltype(M::rank())>(d))) !=
              strides[d]) {
        throw ShapeError(detail::concat("shardmesh::to_mdspan: a local part of shape ",
                                        to_string(local.shape()),
                                        " is row-major, the layout of the mdspan is not; ask for "
                                        "layout_right"));
      }
    }
  }
  return result;
}

/// The elements of an mdspan as a tensor, without a copy: a plain one, or the local part of
/// `from_local`.
/// @tparam Space where the elements lie.
/// @param owner  is kept for as long as a handle of the elements lives; if it is empty, the caller
///               keeps them there.
/// @throws ShapeError if they are not row-major without gaps, as `ForeignTensor`.
template <MemorySpace Space = HostMemory, Mdspan M>
  requires(!std::is_const_v<typename M::element_type>)
[[nodiscard]] Tensor<typename M::element_type, Space> from_mdspan(
    M const& elements, std::shared_ptr<void> owner = {}) {
  static_assert(M::rank() <= max_rank, "shardmesh::from_mdspan: tensors have at most 8 dimensions");
  using T = typename M::element_type;
  T* const data = elements.data_handle();
  Shape shape;
  Shape strides;
  if constexpr (M::rank() > 0) {
    for (std::size_t d = 0; d < M::rank(); ++d) {
      auto const dim = static_cast<decltype(M::rank())>(d);
      shape.push_back(static_cast<index_t>(elements.extent(dim)));
      strides.push_back(static_cast<index_t>(elements.stride(dim)));
    }
  }
  return ForeignTensor<Space>(data, dtype_of<T>, shape, strides, std::move(owner)).template as<T>();
}

}  // namespace v0
}  // namespace shardmesh
