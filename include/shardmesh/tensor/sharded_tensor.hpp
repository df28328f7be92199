// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/layout/layout.hpp>
#include <shardmesh/tensor/redistribute.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// A tensor cut along dimension 0 over a group of ranks, without a mesh: a list of local shards with
/// their global offsets, the form of PyTorch's `ShardedTensor`. It is what sharding over a pair of
/// communicators gives. A rank that has no part has no shard, where a `DistTensor` has an empty one.
///
/// A handle: copies share the local elements.
template <Element T, Communicator Comm, MemorySpace Space = HostMemory>
class ShardedTensor {
 public:
  using value_type = T;
  using communicator_type = Comm;
  using memory_space = Space;
  using Stream = typename Space::Stream;

  /// A part of the global tensor.
  struct LocalShard {
    Tensor<T, Space> tensor;
    Shape offset;  ///< global offset of its first element
  };

  /// From this rank's part by the chunk rule.
  /// @param shard_group     the ranks that hold the parts, in the order of the parts.
  /// @param replicate_group the ranks that hold the same part.
  /// @throws ShapeError if the shape of `local` is not that of the calling rank's part.
  ShardedTensor(Comm shard_group, Comm replicate_group, Shape const& shape, Tensor<T, Space> local)
      : shard_group_(std::move(shard_group)),
        replicate_group_(std::move(replicate_group)),
        layout_(shape, Shape{shard_group_.size()}, PlacementList{Shard{0}}),
        local_(std::move(local)) {
    Shape const expected = layout_.local_shape(coordinate());
    if (!(local_.shape() == expected)) {
      throw ShapeError("shardmesh::ShardedTensor: the local tensor has shape " +
                       to_string(local_.shape()) + ", but this rank's part of " +
                       to_string(layout_) + " has shape " + to_string(expected));
    }
  }

  [[nodiscard]] Comm const& shard_group() const noexcept { return shard_group_; }
  [[nodiscard]] Comm const& replicate_group() const noexcept { return replicate_group_; }
  /// Who holds what, over the ranks of the shard group.
  [[nodiscard]] Layout const& layout() const noexcept { return layout_; }
  /// Position in the shard group.
  [[nodiscard]] Coordinate coordinate() const { return {shard_group_.rank()}; }
  /// Is the calling rank the first of all ranks of both groups?
  [[nodiscard]] bool is_first() const {
    return shard_group_.rank() == 0 && replicate_group_.rank() == 0;
  }
  /// Global shape.
  [[nodiscard]] Shape const& shape() const noexcept { return layout_.shape(); }
  [[nodiscard]] static constexpr DType dtype() noexcept { return dtype_of<T>; }

  /// This rank's part; a view, not a copy; 0 rows if it has none.
  [[nodiscard]] Tensor<T, Space> const& to_local() const noexcept { return local_; }

  /// This rank's shards: one, or none.
  [[nodiscard]] std::vector<LocalShard> local_shards() const {
    if (local_.size() == 0) {
      return {};
    }
    return {{local_, layout_.local_offset(coordinate())}};
  }

  /// The same tensor with its local part in another memory space.
  template <MemorySpace Target>
  [[nodiscard]] ShardedTensor<T, Comm, Target> to(CopyStream<Target, Space> stream = {}) const {
    return {shard_group_, replicate_group_, shape(), local_.template clone<Target>(stream)};
  }

 private:
  Comm shard_group_;
  Comm replicate_group_;
  Layout layout_;
  Tensor<T, Space> local_;
};

/// The whole tensor on the first of all ranks; the others get shape (0) and allocate nothing.
/// @collective over the shard group; only the first one moves anything.
template <Element T, Communicator Comm, MemorySpace Space>
[[nodiscard]] Tensor<T, Space> gather_to_first(ShardedTensor<T, Comm, Space> const& source,
                                               typename Space::Stream stream = {}) {
  if (source.replicate_group().rank() != 0) {
    return {};
  }
  Layout const first(source.shape(), Shape{1}, PlacementList{Replicate{}});
  auto const& comm = source.shard_group();
  return detail::run(make_rank_plan(source.layout(), first, comm.rank()), comm, source.to_local(),
                     "gather_to_first", stream);
}

namespace detail {

template <class T>
struct IsShardedTensor : std::false_type {};
template <class T, class Comm, class Space>
struct IsShardedTensor<ShardedTensor<T, Comm, Space>> : std::true_type {};

}  // namespace detail

/// Any `ShardedTensor`.
template <class T>
concept AnyShardedTensor = detail::IsShardedTensor<std::remove_cvref_t<T>>::value;

}  // namespace v0
}  // namespace shardmesh
