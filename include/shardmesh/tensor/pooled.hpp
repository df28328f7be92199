// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <utility>

#include <shardmesh/core/shape.hpp>
#include <shardmesh/memory/any_stream.hpp>
#include <shardmesh/memory/copy.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/host_block.hpp>
#include <shardmesh/memory/host_buckets.hpp>
#include <shardmesh/memory/resource.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A tensor in host memory of the pool, or of the resource that takes the place of all host memory. Elements are
/// uninitialised.
/// @tparam From    a space from which it will be filled.
/// @param buckets  that small tensors share, where there are many; or nullptr.
template <Element T, MemorySpace From = HostMemory>
[[nodiscard]] Tensor<T> pooled_tensor(Shape const& shape, HostBuckets* buckets) {
  if constexpr (requires { From::prepare_host(); }) {
    From::prepare_host();
  }
  auto const bytes = static_cast<std::size_t>(volume(shape)) * sizeof(T);
  if (bytes == 0 || resource_in_use<HostMemory>() != nullptr) {
    return Tensor<T>(shape);
  }
  std::shared_ptr<std::byte> memory;
  if (buckets != nullptr) {
    memory = buckets->take(bytes);
  } else {
    auto const block = std::make_shared<HostBlock>(bytes);
    memory = {block, block->data()};
  }
  auto* const first = reinterpret_cast<T*>(memory.get());
  return Tensor<T>::view(shape, std::shared_ptr<T>(std::move(memory), first));
}

/// `tensor.clone<Target>(any)`, in memory of the pool if that is ordinary host memory.
template <MemorySpace Target, Element T, MemorySpace Space>
[[nodiscard]] Tensor<T, Target> pooled_clone(Tensor<T, Space> const& tensor,
                                             AnyStream const& any,
                                             HostBuckets* buckets) {
  auto const stream = any.as<CopyStream<Target, Space>>();
  if constexpr (std::same_as<Target, HostMemory>) {
    if (!tensor.is_sharded_away()) {
      Tensor<T> copy = pooled_tensor<T, Space>(tensor.shape(), buckets);
      copy_bytes<HostMemory, Space>(copy.data(), tensor.data(), tensor.bytes(), stream);
      return copy;
    }
  }
  return tensor.template clone<Target>(stream);
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
