// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>

#include <shardmesh/core/shape.hpp>
#include <shardmesh/memory/copy.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/host_block.hpp>
#include <shardmesh/memory/resource.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Readies the pool for copies from and to a space, where that needs it.
template <MemorySpace Space>
void prepare_host_for() {
  if constexpr (requires { Space::prepare_host(); }) {
    Space::prepare_host();
  }
}

/// A tensor in host memory of the pool, or of the resource that takes the place of all host memory. Elements are
/// uninitialised.
template <Element T>
[[nodiscard]] Tensor<T> pooled_tensor(Shape const& shape) {
  auto const bytes = static_cast<std::size_t>(volume(shape)) * sizeof(T);
  if (bytes == 0 || resource_in_use<HostMemory>() != nullptr) {
    return Tensor<T>(shape);
  }
  auto const block = std::make_shared<HostBlock>(bytes);
  return Tensor<T>::view(shape,
                         std::shared_ptr<T>(block, static_cast<T*>(static_cast<void*>(block->data()))));
}

/// `tensor.clone<Target>(stream)`, in memory of the pool if that is ordinary host memory.
template <MemorySpace Target, Element T, MemorySpace Space>
[[nodiscard]] Tensor<T, Target> pooled_clone(Tensor<T, Space> const& tensor,
                                             CopyStream<Target, Space> stream) {
  if constexpr (std::same_as<Target, HostMemory>) {
    if (!tensor.is_sharded_away()) {
      prepare_host_for<Space>();
      Tensor<T> copy = pooled_tensor<T>(tensor.shape());
      copy_bytes<HostMemory, Space>(copy.data(), tensor.data(), tensor.bytes(), stream);
      return copy;
    }
  }
  return tensor.template clone<Target>(stream);
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
