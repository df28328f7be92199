// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <iterator>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/state/any_tensor.hpp>
#include <shardmesh/tensor/local_part.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// The elements of a local part, row-major: for the algorithms and views of `<ranges>`. Does not keep them.
template <AnyTensorType X>
  requires(X::memory_space::host_accessible)
[[nodiscard]] std::span<typename X::value_type> elements(X const& tensor) {
  return local_part(tensor).span();
}

/// The same of a tensor of run-time element type.
/// @throws InvalidArgument if its elements are of another type, or lie where the host cannot read.
template <Element T>
[[nodiscard]] std::span<T> elements(AnyTensor const& tensor) {
  if (tensor.dtype() != dtype_of<T>) {
    throw InvalidArgument(detail::concat("shardmesh::elements: the elements are ",
                                         to_string(tensor.dtype()), ", asked for as ",
                                         to_string(dtype_of<T>), "; ask for what they are"));
  }
  if (tensor.memory() == MemoryKind::cuda) {
    throw InvalidArgument(
        "shardmesh::elements: the elements lie in cuda memory, which the host cannot read; take "
        "tensor.offloaded()");
  }
  return {static_cast<T*>(tensor.data()), tensor.bytes() / sizeof(T)};
}

/// The rows of a local part: spans of what lies along the last dimension.
template <AnyTensorType X>
  requires(X::memory_space::host_accessible)
[[nodiscard]] auto rows(X const& tensor) {
  auto const& local = local_part(tensor);
  Shape const& shape = local.shape();
  index_t const width = shape.empty() ? 1 : shape.back();
  index_t const count = width == 0 ? 0 : local.size() / width;
  return std::views::iota(index_t{0}, count) |
         std::views::transform([first = local.data(), width](index_t row) {
           return std::span<typename X::value_type>(first + row * width,
                                                    static_cast<std::size_t>(width));
         });
}

/// The elements of a contiguous range (a std::vector, a std::span ...) as a tensor, without a copy.
/// @param owner is kept for as long as a handle of the elements lives; if it is empty, the caller keeps
///              them there.
/// @throws ShapeError if there are not volume(shape) of them.
template <std::ranges::contiguous_range R>
  requires Element<std::ranges::range_value_t<R>> &&
           std::same_as<std::ranges::range_reference_t<R>, std::ranges::range_value_t<R>&>
[[nodiscard]] Tensor<std::ranges::range_value_t<R>> from_range(R&& range,
                                                               Shape const& shape,
                                                               std::shared_ptr<void> owner = {}) {
  using T = std::ranges::range_value_t<R>;
  if (std::cmp_not_equal(std::ranges::size(range), volume(shape))) {
    throw ShapeError(detail::concat("shardmesh::from_range: shape ", to_string(shape), " needs ",
                                    std::to_string(volume(shape)), " elements, the range has ",
                                    std::to_string(std::ranges::size(range))));
  }
  return Tensor<T>::view(shape, std::shared_ptr<T>(std::move(owner), std::ranges::data(range)));
}

}  // namespace v0
}  // namespace shardmesh
