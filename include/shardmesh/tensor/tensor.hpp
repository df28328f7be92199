// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/memory/buffer.hpp>
#include <shardmesh/memory/copy.hpp>
#include <shardmesh/memory/host.hpp>

namespace shardmesh {
inline namespace v0 {

/// A dense, row-major tensor in one memory space. A handle: copies share the elements, `clone()`
/// makes new ones. Memory space is part of the type, so a host loop over device memory does not
/// compile.
template <Element T, MemorySpace Space = HostMemory>
class Tensor {
 public:
  using value_type = T;
  using memory_space = Space;
  using Stream = typename Space::Stream;

  /// No elements: shape (0).
  Tensor() : Tensor(Shape{0}) {}

  /// Elements that are NOT initialised, as those of `torch.empty`: write each before it is read, or make the
  /// tensor with `zeros` or `from`.
  /// @param stream the allocation is ordered on it.
  explicit Tensor(Shape const& shape, Stream stream = {}) : shape_(shape) {
    auto const bytes = static_cast<std::size_t>(volume(shape)) * sizeof(T);
    auto const buffer = std::make_shared<Buffer<Space>>(bytes, stream);
    elements_ = std::shared_ptr<T>(buffer, static_cast<T*>(buffer->data()));
  }

  /// Elements that are there already: a part of another tensor's, or memory of a host framework.
  /// @param elements the first of volume(shape) row-major elements in this memory space. What it
  ///                 owns is kept for as long as a handle lives: alias a `Tensor::storage()`, or
  ///                 give it the deleter that the framework asks for.
  [[nodiscard]] static Tensor view(Shape const& shape, std::shared_ptr<T> elements) {
    return Tensor(shape, std::move(elements));
  }

  /// All elements zero.
  [[nodiscard]] static Tensor zeros(Shape const& shape, Stream stream = {}) {
    Tensor tensor(shape, stream);
    Space::fill_zero(tensor.data(), tensor.bytes(), stream);
    return tensor;
  }

  /// No elements, in the place of a parameter whose elements lie in its sharded form: what a model has between
  /// two passes. Where NDEBUG is not defined, `span()` of it, and of its copies, throws.
  [[nodiscard]] static Tensor sharded_away() {
    Tensor tensor;
    tensor.sharded_away_ = true;
    return tensor;
  }

  /// Elements copied from host memory, row-major.
  /// @throws ShapeError if `values` does not hold volume(shape) elements.
  [[nodiscard]] static Tensor from(Shape const& shape,
                                   std::span<T const> values,
                                   Stream stream = {}) {
    if (static_cast<index_t>(values.size()) != volume(shape)) {
      throw ShapeError("shardmesh::Tensor::from: shape " + to_string(shape) + " needs " +
                       std::to_string(volume(shape)) + " values, got " +
                       std::to_string(values.size()));
    }
    Tensor tensor(shape, stream);
    copy_bytes<Space, HostMemory>(tensor.data(), values.data(), tensor.bytes(), stream);
    stream.synchronize();
    return tensor;
  }

  [[nodiscard]] Shape const& shape() const noexcept { return shape_; }
  [[nodiscard]] index_t size() const { return volume(shape_); }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(size()) * sizeof(T); }
  [[nodiscard]] T* data() const noexcept { return elements_.get(); }
  [[nodiscard]] static constexpr DType dtype() noexcept { return dtype_of<T>; }

  /// Does it stand in the place of a parameter that is whole in a pass only?
  [[nodiscard]] bool is_sharded_away() const noexcept { return sharded_away_; }

  /// The elements, row-major; memory that the host can read only.
  /// @throws InvalidArgument, where NDEBUG is not defined, for a parameter outside a pass.
  [[nodiscard]] std::span<T> span() const
    requires Space::host_accessible
  {
    expect_elements();
    return {data(), static_cast<std::size_t>(size())};
  }

  /// A new tensor with the same elements, in this memory space or another.
  /// @param stream the copy is ordered on it; synchronise it before the host reads the result.
  template <MemorySpace Target = Space>
  [[nodiscard]] Tensor<T, Target> clone(CopyStream<Target, Space> stream = {}) const {
    if (sharded_away_) {
      return Tensor<T, Target>::sharded_away();
    }
    Tensor<T, Target> copy(shape_, stream_of<Target>(stream));
    copy_bytes<Target, Space>(copy.data(), data(), bytes(), stream);
    return copy;
  }

  /// Keeps the elements alive for as long as the returned pointer lives.
  [[nodiscard]] std::shared_ptr<T> const& storage() const noexcept { return elements_; }

 private:
  Tensor(Shape const& shape, std::shared_ptr<T> elements)
      : shape_(shape), elements_(std::move(elements)) {}

  /// An empty loop over a parameter that is not there would go unnoticed.
  void expect_elements() const {
#ifndef NDEBUG
    if (sharded_away_) {
      throw InvalidArgument(
          "shardmesh::Tensor::span: this parameter is sharded, and not whole outside a pass; use "
          "it while "
          "`auto pass = net.forward(unit);` lives, or between net.unshard() and net.reshard()");
    }
#endif
  }

  Shape shape_;
  std::shared_ptr<T> elements_;
  bool sharded_away_ = false;
};

/// A copy in host memory, complete when the call returns.
template <Element T, MemorySpace Space>
[[nodiscard]] Tensor<T, HostMemory> to_host(Tensor<T, Space> const& tensor) {
  CopyStream<HostMemory, Space> stream{};
  auto copy = tensor.template clone<HostMemory>(stream);
  stream.synchronize();
  return copy;
}

}  // namespace v0
}  // namespace shardmesh
