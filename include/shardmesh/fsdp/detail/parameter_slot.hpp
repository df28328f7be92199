// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/fsdp/collect.hpp>
#include <shardmesh/layout/layout.hpp>
#include <shardmesh/state/role.hpp>
#include <shardmesh/tensor/convert.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A parameter of a sharded model: the members that hold it whole, and its sharded form.
template <class T, class Space, class Parameter>
struct ParameterSlot {
  std::vector<std::string> names;         ///< its own, then those of members tied to it
  std::vector<Tensor<T, Space>*> leaves;  ///< the members, by name
  Role role = Role::parameter;
  Shape shape;  ///< of what the shard group cuts
  Parameter sharded;
};

/// The slot of a model's parameter whose sharded form has the elements of type Master.
template <class Sharding, class T, class Space, class Master>
using SlotOf = ParameterSlot<T, Space, typename Sharding::template Parameter<Master, Space>>;

/// Cuts a parameter. No communication.
template <class Master, class Sharding, class T, class Space>
[[nodiscard]] std::unique_ptr<SlotOf<Sharding, T, Space, Master>> cut_parameter(
    Sharding const& sharding,
    FoundParameter<T, Space> const& found,
    typename Space::Stream stream) {
  auto const& shard = sharding.shard_group();
  Shape const whole = found.leaves.front()->shape();
  Tensor<T, Space> const business =
      sharding.cut(found.names.front(), *found.leaves.front(), stream);
  Layout const layout(business.shape(), Shape{shard.size()}, PlacementList{Shard{0}});
  auto part =
      convert<Master>(cut_local(business, layout, Coordinate{shard.rank()}, stream), stream);
  return std::unique_ptr<SlotOf<Sharding, T, Space, Master>>(new SlotOf<Sharding, T, Space, Master>{
      found.names, found.leaves, found.role, business.shape(),
      sharding.make(found.names.front(), whole, std::move(part))});
}

/// Of a rank outside the mesh: without elements. The members are emptied.
template <class Master, class Sharding, class T, class Space>
[[nodiscard]] std::unique_ptr<SlotOf<Sharding, T, Space, Master>> parameter_outside(
    Sharding const& sharding, FoundParameter<T, Space> const& found) {
  Shape const whole = found.leaves.front()->shape();
  std::unique_ptr<SlotOf<Sharding, T, Space, Master>> slot(new SlotOf<Sharding, T, Space, Master>{
      found.names, found.leaves, found.role, whole,
      sharding.make(found.names.front(), whole, Tensor<Master, Space>())});
  for (Tensor<T, Space>* const leaf : found.leaves) {
    *leaf = Tensor<T, Space>::sharded_away();
  }
  return slot;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
