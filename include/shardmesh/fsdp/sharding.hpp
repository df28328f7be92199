// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/dist_tensor.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/sharded_tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// Over what a model is sharded, and the kind of tensor that its parameters become. Three kinds are
/// below; a sharding knows
/// - `is_member()`: has the calling rank a part at all?
/// - `shard_group()`, over which each parameter is cut along dimension 0, and `replicate_group()`,
///   over which the parts are replicated (of one rank where there is nothing to replicate over);
/// - `groups()`: groups over which, one after the other, the first rank's word reaches all ranks;
/// - `cut(name, whole)`: what of a whole parameter is this rank's business before that;
/// - `make<T, Space>(name, whole shape, part)`: the sharded parameter.
///
/// A mesh of one dimension shards over it; of two, it replicates over the first and shards over the
/// second: hybrid sharding.
template <class Mesh>
class MeshSharding {
  static constexpr std::size_t dims = Mesh::rank_of_mesh;
  static_assert(dims <= 2,
                "shardmesh::fully_shard: a mesh of one dimension shards over it, a mesh of two "
                "replicates over the first and shards over the second; give a TensorParallel plan "
                "or a sub-mesh for more");

 public:
  using communicator_type = typename Mesh::communicator_type;
  using placements_type =
      std::conditional_t<dims == 1, Placements<Shard<0>>, Placements<Replicate, Shard<0>>>;
  template <class T, class Space>
  using Parameter = DistTensor<T, Mesh, placements_type, Space>;

  /// @collective over the mesh.
  explicit MeshSharding(Mesh mesh) : mesh_(std::move(mesh)) {
    if (is_member()) {
      shard_ = mesh_.group(dims - 1);
      replicate_ = dims == 2 ? mesh_.group(0) : shard_.split(shard_.rank(), 0);
    }
  }

  [[nodiscard]] bool is_member() const noexcept { return mesh_.is_member(); }
  [[nodiscard]] communicator_type const& shard_group() const noexcept { return shard_; }
  [[nodiscard]] communicator_type const& replicate_group() const noexcept { return replicate_; }
  [[nodiscard]] std::array<communicator_type const*, 1> groups() const { return {&mesh_.comm()}; }

  template <class T, class Space>
  [[nodiscard]] Tensor<T, Space> cut(std::string const&,
                                     Tensor<T, Space> const& whole,
                                     typename Space::Stream) const {
    return whole;
  }

  template <class T, class Space>
  [[nodiscard]] Parameter<T, Space> make(std::string const&,
                                         Shape const& whole,
                                         Tensor<T, Space> part) const {
    return {mesh_, Layout(whole, mesh_.shape(), to_list(placements_type{})), std::move(part)};
  }

 private:
  Mesh mesh_;
  communicator_type shard_;
  communicator_type replicate_;
};

/// Over a pair of communicators: parameters become `ShardedTensor`s, which know no mesh.
template <Communicator Comm>
class GroupSharding {
 public:
  using communicator_type = Comm;
  template <class T, class Space>
  using Parameter = ShardedTensor<T, Comm, Space>;

  GroupSharding(Comm shard_group, Comm replicate_group)
      : shard_(std::move(shard_group)), replicate_(std::move(replicate_group)) {}

  [[nodiscard]] static constexpr bool is_member() noexcept { return true; }
  [[nodiscard]] Comm const& shard_group() const noexcept { return shard_; }
  [[nodiscard]] Comm const& replicate_group() const noexcept { return replicate_; }
  [[nodiscard]] std::array<Comm const*, 2> groups() const { return {&shard_, &replicate_}; }

  template <class T, class Space>
  [[nodiscard]] Tensor<T, Space> cut(std::string const&,
                                     Tensor<T, Space> const& whole,
                                     typename Space::Stream) const {
    return whole;
  }

  template <class T, class Space>
  [[nodiscard]] Parameter<T, Space> make(std::string const&,
                                         Shape const& whole,
                                         Tensor<T, Space> part) const {
    return {shard_, replicate_, whole, std::move(part)};
  }

 private:
  Comm shard_;
  Comm replicate_;
};

/// Over a mesh of which one dimension has cut the parameters before: that cut is made first, the
/// sharding then cuts what is left. Where both cut dimension 0 the placement of the sharding is
/// PyTorch's strided shard. Parameters that the plan replicates stay on the whole mesh.
template <class Mesh>
class TensorParallelSharding {
  static constexpr std::size_t dims = Mesh::rank_of_mesh;
  static_assert(dims == 2 || dims == 3,
                "shardmesh::fully_shard: with tensor parallelism the mesh has two dimensions "
                "(shard, tp) or three (replicate, shard, tp)");

 public:
  using communicator_type = typename Mesh::communicator_type;
  template <class T, class Space>
  using Parameter = DistTensor<T, Mesh, PlacementList, Space>;

  /// @throws InvalidArgument if the mesh has no such dimension, or it is not the last one.
  /// @collective over the mesh.
  TensorParallelSharding(Mesh mesh, TensorParallel parallel)
      : mesh_(std::move(mesh)), parallel_(std::move(parallel)) {
    if (dimension(mesh_.description(), parallel_.mesh_dim) != dims - 1) {
      throw InvalidArgument("shardmesh::fully_shard: \"" + parallel_.mesh_dim +
                            "\" must be the last dimension of " + to_string(mesh_.description()) +
                            "; neighbouring ranks share a tensor-parallel group");
    }
    if (is_member()) {
      shard_ = mesh_.group(dims - 2);
      replicate_ = dims == 3 ? mesh_.group(0) : shard_.split(shard_.rank(), 0);
    }
  }

  [[nodiscard]] bool is_member() const noexcept { return mesh_.is_member(); }
  [[nodiscard]] communicator_type const& shard_group() const noexcept { return shard_; }
  [[nodiscard]] communicator_type const& replicate_group() const noexcept { return replicate_; }
  [[nodiscard]] std::array<communicator_type const*, 1> groups() const { return {&mesh_.comm()}; }

  template <class T, class Space>
  [[nodiscard]] Tensor<T, Space> cut(std::string const& name,
                                     Tensor<T, Space> const& whole,
                                     typename Space::Stream stream) const {
    Layout const layout(whole.shape(), Shape{mesh_.shape()[dims - 1]},
                        PlacementList{placement_of(name)});
    return detail::cut_local(whole, layout, {mesh_.coordinate()[dims - 1]}, stream);
  }

  template <class T, class Space>
  [[nodiscard]] Parameter<T, Space> make(std::string const& name,
                                         Shape const& whole,
                                         Tensor<T, Space> part) const {
    ShardOrder order;
    Layout const cut(whole, Shape{mesh_.shape()[dims - 1]}, PlacementList{placement_of(name)});
    for (Cut const& one : cut.order()) {
      order.push_back({one.tensor_dim, static_cast<int>(dims - 1), one.split_factor});
    }
    order.push_back({0, static_cast<int>(dims - 2), 1});
    return {mesh_, Layout::with_order(whole, mesh_.shape(), order), std::move(part)};
  }

 private:
  [[nodiscard]] Placement placement_of(std::string const& name) const {
    for (auto const& [key, placement] : parallel_.plan) {
      if (key == name) {
        return placement;
      }
    }
    return Replicate{};
  }

  Mesh mesh_;
  TensorParallel parallel_;
  communicator_type shard_;
  communicator_type replicate_;
};

}  // namespace v0
}  // namespace shardmesh
