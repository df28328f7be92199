// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <utility>

#include <shardmesh/tensor/dist_tensor.hpp>
#include <shardmesh/tensor/sharded_tensor.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// Any tensor: plain, distributed over a mesh, or sharded over a group.
template <class T>
concept AnyTensorType = AnyPlainTensor<T> || AnyDistTensor<T> || AnyShardedTensor<T>;

/// What a rank holds of a tensor: the tensor itself if it is plain. A handle, not a copy.
template <AnyTensorType X>
[[nodiscard]] auto const& local_part(X const& tensor) {
  if constexpr (AnyPlainTensor<X>) {
    return tensor;
  } else {
    return tensor.to_local();
  }
}

/// The same tensor (shape, placements, mesh or groups, memory space) with another local part.
/// @throws ShapeError if the local part has not the shape of the present one.
template <AnyTensorType X, Element T, MemorySpace Space>
[[nodiscard]] auto with_local_part(X const& tensor, Tensor<T, Space> local) {
  if constexpr (AnyPlainTensor<X>) {
    return local;
  } else if constexpr (AnyDistTensor<X>) {
    return DistTensor<T, typename X::mesh_type, typename X::placements_type, Space>(
        tensor.mesh(), tensor.layout(), std::move(local));
  } else {
    return ShardedTensor<T, typename X::communicator_type, Space>(
        tensor.shard_group(), tensor.replicate_group(), tensor.shape(), std::move(local));
  }
}

/// A tensor of the same kind, shape and placements, all elements zero. No communication.
template <AnyTensorType X>
[[nodiscard]] X zeros_like(X const& tensor, typename X::Stream stream = {}) {
  using Local = Tensor<typename X::value_type, typename X::memory_space>;
  return with_local_part(tensor, Local::zeros(local_part(tensor).shape(), stream));
}

}  // namespace v0
}  // namespace shardmesh
