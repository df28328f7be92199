// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/memory/buffer.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/state/any_tensor.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Are elements of these strides row-major without gaps? Strides that nothing steps along do not count.
[[nodiscard]] constexpr bool is_row_major(Shape const& shape, Shape const& strides) {
  Shape const wanted = row_major_strides(shape);
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] > 1 && strides[d] != wanted[d] && volume(shape) > 0) {
      return false;
    }
  }
  return true;
}

[[nodiscard]] inline std::size_t alignment_of(DType dtype) {
  return visit_dtype(dtype, []<class T>(std::type_identity<T>) { return alignof(T); });
}

/// @throws ShapeError, InvalidArgument if no tensor can be there.
inline void check_foreign(void const* data, DType dtype, Shape const& shape, Shape const& strides) {
  for (index_t const extent : shape) {
    if (extent < 0) {
      throw ShapeError(concat("shardmesh::ForeignTensor: shape ", to_string(shape),
                              " has a negative extent; extents are 0 or more"));
    }
  }
  if (strides.size() != shape.size()) {
    throw ShapeError(concat("shardmesh::ForeignTensor: shape ", to_string(shape), " has ",
                            std::to_string(shape.size()), " dimensions, strides ",
                            to_string(strides), " are for ", std::to_string(strides.size()),
                            "; give one stride for each dimension, in elements"));
  }
  if (volume(shape) == 0) {
    return;
  }
  if (data == nullptr) {
    throw InvalidArgument(concat("shardmesh::ForeignTensor: the address of ", to_string(shape), " ",
                                 to_string(dtype), " is null; give that of its first element"));
  }
  std::size_t const alignment = alignment_of(dtype);
  if (reinterpret_cast<std::uintptr_t>(data) % alignment != 0) {
    throw InvalidArgument(concat("shardmesh::ForeignTensor: the address of ", to_string(shape), " ",
                                 to_string(dtype), " is no multiple of ", std::to_string(alignment),
                                 " bytes, as its elements need; copy it to where it is"));
  }
}

}  // namespace detail

/// A tensor of run-time element type in memory that somebody else owns: an engine, another framework.
/// Nothing is copied. A handle: copies share the elements.
///
/// @code
///   sm::ForeignTensor weight(pointer, sm::DType::bfloat16, {rows, columns});
///   sm::StateDict state;
///   state.insert("weight", sm::from_local(weight, mesh, sm::placements<sm::Shard<0>>));
///   sm::load(world, "checkpoint", state);  // writes to `pointer`
/// @endcode
///
/// @tparam Space the memory space that the address is of.
template <MemorySpace Space = HostMemory>
class ForeignTensor {
 public:
  using memory_space = Space;
  using Stream = typename Space::Stream;

  /// Row-major elements.
  /// @param data  the first of volume(shape) elements; may be null if there are none.
  /// @param owner is kept for as long as a handle of the elements lives; if it is empty, the caller
  ///              keeps them there.
  /// @throws ShapeError for a negative extent; InvalidArgument for a null or misaligned address.
  ForeignTensor(void* data, DType dtype, Shape const& shape, std::shared_ptr<void> owner = {})
      : ForeignTensor(data, dtype, shape, row_major_or_none(shape), std::move(owner)) {}

  /// @param strides in elements, one for each dimension.
  /// @throws ShapeError if they are not those of row-major elements without gaps, besides the above:
  ///         `packed` copies such elements, or the framework does.
  ForeignTensor(void* data,
                DType dtype,
                Shape const& shape,
                Shape const& strides,
                std::shared_ptr<void> owner)
      : data_(data), dtype_(dtype), shape_(shape), owner_(std::move(owner)) {
    detail::check_foreign(data, dtype, shape, strides);
    if (!detail::is_row_major(shape, strides)) {
      throw ShapeError(detail::concat(
          "shardmesh::ForeignTensor: elements of shape ", to_string(shape), " with strides ",
          to_string(strides), " are not row-major, that would be strides ",
          to_string(row_major_strides(shape)),
          "; copy them (ForeignTensor::packed; PyTorch: .contiguous(); NumPy: ascontiguousarray)"));
    }
  }

  /// A row-major copy of elements with any strides that are not negative, in memory of its own. What is
  /// loaded into it does not reach the elements that it was made of.
  /// @param stream the copy is ordered on it.
  [[nodiscard]] static ForeignTensor packed(
      void const* data, DType dtype, Shape const& shape, Shape const& strides, Stream stream = {}) {
    detail::check_foreign(data, dtype, shape, strides);
    auto const size = static_cast<index_t>(size_of(dtype));
    StridedCopy copy{data, nullptr, shape, strides, row_major_strides(shape), size_of(dtype)};
    for (std::size_t d = 0; d < shape.size(); ++d) {
      if (strides[d] < 0) {
        throw ShapeError(detail::concat("shardmesh::ForeignTensor::packed: strides ",
                                        to_string(strides),
                                        " run backwards; copy the elements (NumPy: "
                                        "ascontiguousarray) or turn the dimension around"));
      }
      copy.source_strides[d] *= size;
      copy.destination_strides[d] *= size;
    }
    auto const buffer = std::make_shared<Buffer<Space>>(
        static_cast<std::size_t>(volume(shape)) * size_of(dtype), stream);
    if (volume(shape) > 0) {
      copy.destination = buffer->data();
      Space::copy(copy, stream);
    }
    return ForeignTensor(buffer->data(), dtype, shape, buffer);
  }

  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] Shape const& shape() const noexcept { return shape_; }
  [[nodiscard]] std::size_t bytes() const {
    return static_cast<std::size_t>(volume(shape_)) * size_of(dtype_);
  }
  [[nodiscard]] std::shared_ptr<void> const& owner() const noexcept { return owner_; }

  /// Has the owner said that nobody may write to the elements?
  [[nodiscard]] bool is_read_only() const noexcept { return read_only_; }
  [[nodiscard]] ForeignTensor as_read_only() const {
    ForeignTensor copy = *this;
    copy.read_only_ = true;
    return copy;
  }
  /// The same elements, on the caller's word that nothing will write to them: they are saved or sent,
  /// and not loaded into. shardmesh's own tensors do not know elements that must not be written to.
  [[nodiscard]] ForeignTensor promise_not_to_write() const {
    ForeignTensor copy = *this;
    copy.read_only_ = false;
    return copy;
  }

  /// The elements as a tensor of a type that is known at compile time.
  /// @throws InvalidArgument if they are of another type, or read-only.
  template <Element T>
  [[nodiscard]] Tensor<T, Space> as() const {
    if (dtype_of<T> != dtype_) {
      throw InvalidArgument(detail::concat("shardmesh::ForeignTensor::as: the elements are ",
                                           to_string(dtype_), ", asked for as ",
                                           to_string(dtype_of<T>), "; ask for what they are"));
    }
    require_writable();
    return Tensor<T, Space>::view(shape_, std::shared_ptr<T>(owner_, static_cast<T*>(data_)));
  }

  /// Calls `f(tensor)` with the elements as a tensor of their type.
  /// @throws InvalidArgument if they are read-only.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return visit_dtype(dtype_, [&]<class T>(std::type_identity<T>) { return f(as<T>()); });
  }

  /// A plain tensor of a state dict: whole on this rank.
  /// @throws InvalidArgument if the elements are read-only.
  [[nodiscard]] AnyTensor any() const {
    return visit([](auto const& tensor) { return AnyTensor(tensor); });
  }

 private:
  /// A shape that is refused has no strides.
  [[nodiscard]] static Shape row_major_or_none(Shape const& shape) {
    for (index_t const extent : shape) {
      if (extent < 0) {
        return {};
      }
    }
    return row_major_strides(shape);
  }

  void require_writable() const {
    if (read_only_) {
      throw InvalidArgument(detail::concat(
          "shardmesh::ForeignTensor: the owner of these ", to_string(shape_), " ",
          to_string(dtype_),
          " says that they are read-only; copy them, or say promise_not_to_write() where they are "
          "saved or sent and never loaded into"));
    }
  }

  void* data_;
  DType dtype_;
  Shape shape_;
  std::shared_ptr<void> owner_;
  bool read_only_ = false;
};

/// Makes a distributed tensor of local parts of run-time element type. Nothing is moved; a state dict
/// that holds it saves from, and loads into, the memory that is there.
/// @param local this rank's part, or its contribution where a placement is partial.
/// @param shape global shape; if not given it is found by adding up the local shapes of all ranks.
/// @throws as `from_local` for a `Tensor`; InvalidArgument if the elements are read-only.
/// @collective over `mesh`.
template <MemorySpace Space, class Mesh, PlacementTuple P>
[[nodiscard]] AnyTensor from_local(ForeignTensor<Space> const& local,
                                   Mesh const& mesh,
                                   P const& placement_tuple,
                                   std::optional<Shape> shape = std::nullopt) {
  // One type of placements, whatever was given: there are many element types.
  PlacementList const list = to_list(placement_tuple);
  return local.visit(
      [&](auto const& tensor) { return AnyTensor(from_local(tensor, mesh, list, shape)); });
}

}  // namespace v0
}  // namespace shardmesh
