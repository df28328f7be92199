// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/address_map.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/state/parameter_type.hpp>
#include <shardmesh/state/visit.hpp>
#include <shardmesh/tensor/fused_exchange.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A parameter of a model and the members that hold it: several, if they are tied.
template <class T, class Space>
struct FoundParameter {
  std::vector<std::string> names;
  std::vector<Tensor<T, Space>*> leaves;
  Role role = Role::parameter;

  /// The names of the members but the first.
  [[nodiscard]] std::vector<std::string> tied() const { return {names.begin() + 1, names.end()}; }
};

[[nodiscard]] constexpr bool is_sharded_role(Role role) noexcept {
  return role == Role::parameter || role == Role::frozen;
}

/// The parameters of a model, in its order. Members that share their elements are one.
/// @throws InvalidArgument for a parameter of another type, or without dimensions.
template <class T, class Space, class Model>
[[nodiscard]] std::vector<FoundParameter<T, Space>> collect_parameters(Model& model) {
  using Whole = Tensor<T, Space>;
  std::vector<FoundParameter<T, Space>> found;
  for_each_leaf(model, [&found]<class Leaf>(std::string const& name, Leaf& leaf, Role role) {
    if constexpr (AnyTensorType<Leaf>) {
      if (!is_sharded_role(role)) {
        return;
      }
      if constexpr (std::is_same_v<Leaf, Whole>) {
        if (leaf.shape().empty()) {
          throw InvalidArgument("shardmesh::fully_shard: \"" + name +
                                "\" has no dimension to cut; give it one, or tag it as buffer() "
                                "in visit()");
        }
        for (auto& other : found) {
          Whole const& first = *other.leaves.front();
          if (leaf.size() > 0 && leaf.data() == first.data() && leaf.shape() == first.shape()) {
            other.names.push_back(name);
            other.leaves.push_back(&leaf);
            return;
          }
        }
        found.push_back({{name}, {&leaf}, role});
      } else {
        throw InvalidArgument("shardmesh::fully_shard: \"" + name + "\" holds " +
                              std::string(to_string(Leaf::dtype())) +
                              (AnyPlainTensor<Leaf> ? "" : " and is distributed already") +
                              ", the model's parameters are plain tensors of " +
                              std::string(to_string(dtype_of<T>)) + " in " +
                              std::string(to_string(Space::kind)) +
                              " memory; tag it as buffer() in visit() if it is none");
      }
    }
  });
  return found;
}

/// @throws MismatchError on every rank, showing both sides, if ranks have different parameters.
/// @collective over the groups of the sharding.
template <class Sharding, class T, class Space>
void agree_on_parameters(Sharding const& sharding,
                         std::vector<FoundParameter<T, Space>> const& found) {
  std::string text;
  for (auto const& one : found) {
    text += (text.empty() ? "" : ", ") + one.names.front() + " " +
            to_string(one.leaves.front()->shape());
  }
  for (auto const* group : sharding.groups()) {
    check_agreement(*group, "fully_shard", "the parameters " + text);
  }
}

/// Gives every rank the values of the first one.
/// @collective over the groups of the sharding.
template <class Sharding, class T, class Space>
void take_from_first(Sharding const& sharding,
                     std::vector<FoundParameter<T, Space>>& found,
                     typename Space::Stream stream) {
  PlacementList const whole{Replicate{}};
  for (auto const* group : sharding.groups()) {
    std::vector<Plan> plans;
    std::vector<Tensor<T, Space>> before;
    std::vector<Tensor<T, Space>> after;
    for (auto const& one : found) {
      Shape const& shape = one.leaves.front()->shape();
      plans.push_back(
          make_plan(Layout(shape, Shape{1}, whole), Layout(shape, Shape{group->size()}, whole)));
      before.push_back(*one.leaves.front());
      after.emplace_back(shape, stream);
    }
    FusedExchange("fully_shard", "values of the first rank", plans, group->rank())
        .run(*group, before, after, stream);
    for (std::size_t i = 0; i < found.size(); ++i) {
      for (auto* leaf : found[i].leaves) {
        *leaf = after[i];
      }
    }
  }
}

/// Collects the names that a model gives its members.
struct MemberNames {
  std::vector<std::string> names;
  template <class T>
  void operator()(std::string_view name, T&&) {
    names.emplace_back(name);
  }
};

template <class Model>
[[nodiscard]] std::vector<std::string> member_names(Model& model) {
  MemberNames collector;
  visit_members(model, collector);
  return collector.names;
}

/// The longest of `prefixes` below which `name` stands; "" if none.
[[nodiscard]] inline std::string unit_of(std::string const& name,
                                         std::vector<std::string> const& prefixes) {
  std::string longest;
  for (std::string const& prefix : prefixes) {
    bool const below = name == prefix || name.substr(0, prefix.size() + 1) == prefix + ".";
    longest = below && prefix.size() > longest.size() ? prefix : longest;
  }
  return longest;
}

/// Which parameters are gathered and freed together.
struct UnitGrouping {
  std::vector<std::string> names;    ///< of units, in the order of their first parameters
  std::vector<std::size_t> unit_of;  ///< by parameter
};

/// @param prefixes see `FullyShardOptions::units`.
template <class Model, class T, class Space>
[[nodiscard]] UnitGrouping group_parameters(Model& model,
                                            std::vector<FoundParameter<T, Space>> const& found,
                                            std::vector<std::string> prefixes) {
  if (prefixes.empty()) {
    prefixes = member_names(model);
  }
  UnitGrouping grouping;
  for (auto const& one : found) {
    std::string const name = unit_of(one.names.front(), prefixes);
    std::size_t at = 0;
    while (at < grouping.names.size() && grouping.names[at] != name) {
      ++at;
    }
    if (at == grouping.names.size()) {
      grouping.names.push_back(name);
    }
    grouping.unit_of.push_back(at);
  }
  return grouping;
}

/// A parameter that has a gradient.
struct TrainedParameter {
  std::string name;
  Shape shape;  ///< of the gradient
  std::size_t unit;
  std::vector<std::string> tied;  ///< names of the other members that hold it
};

/// The gradients of a model by unit, each unit's in the order of the model.
/// @throws ShapeError if one is missing or has another shape than its parameter.
template <class T, class Space>
[[nodiscard]] std::vector<std::vector<Tensor<T, Space>>> gradients_by_unit(
    std::vector<TrainedParameter> const& trained,
    std::vector<Tensor<T, Space>> const& gradients,
    std::size_t units) {
  if (gradients.size() != trained.size()) {
    throw ShapeError("shardmesh::reduce_gradients: " + std::to_string(gradients.size()) +
                     " gradients for " + std::to_string(trained.size()) +
                     " trained parameters; give one for each, in the order of the model");
  }
  std::vector<std::vector<Tensor<T, Space>>> by_unit(units);
  for (std::size_t i = 0; i < trained.size(); ++i) {
    if (!(gradients[i].shape() == trained[i].shape)) {
      throw ShapeError("shardmesh::reduce_gradients: the gradient of \"" + trained[i].name +
                       "\" has shape " + to_string(gradients[i].shape()) + ", the parameter " +
                       to_string(trained[i].shape) +
                       "; give one for each trained parameter, in the order of the model");
    }
    by_unit[trained[i].unit].push_back(gradients[i]);
  }
  return by_unit;
}

/// The trained parameters of one unit.
[[nodiscard]] inline std::vector<TrainedParameter> trained_in(
    std::vector<TrainedParameter> const& trained, std::size_t unit) {
  std::vector<TrainedParameter> found;
  for (TrainedParameter const& one : trained) {
    if (one.unit == unit) {
      found.push_back({one.name, one.shape, 0, one.tied});
    }
  }
  return found;
}

/// The tensors of a model of gradients that belong to trained parameters, in order.
/// @throws InvalidArgument if tied members have gradients of their own: one of them would be lost.
template <class T, class Space, class Model>
[[nodiscard]] std::vector<Tensor<T, Space>> gradient_list(
    Model& gradients, std::vector<TrainedParameter> const& trained) {
  KeyMap<std::size_t> tied;
  for (std::size_t i = 0; i < trained.size(); ++i) {
    for (std::string const& name : trained[i].tied) {
      tied.add(name, i);
    }
  }
  std::vector<Tensor<T, Space>> list;
  for_each_leaf(gradients, [&]<class Leaf>(std::string const& name, Leaf& leaf) {
    if constexpr (std::is_same_v<Leaf, Tensor<T, Space>>) {
      if (list.size() < trained.size() && trained[list.size()].name == name) {
        list.push_back(leaf);
      } else if (std::size_t const* const first = tied.find(name);
                 first != nullptr && leaf.size() > 0 &&
                 (*first >= list.size() || leaf.data() != list[*first].data())) {
        throw InvalidArgument("shardmesh::reduce_gradients: \"" + name + "\" is tied to \"" +
                              trained[*first].name +
                              "\" and has a gradient of its own; add them up in the first, and "
                              "leave the other empty or let it share the first's elements");
      }
    }
  });
  return list;
}

/// Calls `f(name, leaf, role)` for every leaf of a model, with the sharded tensor in the place of
/// the member for each member that has one.
/// @param sharded sharded tensors by the address of the member.
template <class Whole, class Model, class Parameter, class F>
void for_each_sharded(Model& model, AddressMap<Parameter*> const& sharded, F&& f) {
  for_each_leaf(model, [&]<class Leaf>(std::string const& name, Leaf& leaf, Role role) {
    if constexpr (std::is_same_v<Leaf, Whole>) {
      if (Parameter* const* const found = sharded.find(&leaf)) {
        f(name, **found, role);
        return;
      }
    }
    f(name, leaf, role);
  });
}

/// Deduces what the user did not say and makes the sharded model.
/// @tparam Sharded `FullyShard` or `FlatShard`.
template <template <class, class, class, class, class> class Sharded,
          class P,
          class Model,
          class Sharding>
[[nodiscard]] auto make_sharded(Model& model, Sharding sharding, FullyShardOptions options) {
  static_assert(!std::is_const_v<Model>,
                "shardmesh::fully_shard: the model is const; sharding empties its tensors but in a "
                "pass, so pass a model that is not const");
  using Whole = typename KnownModelParameter<std::remove_const_t<Model>>::type;
  using T = typename Whole::value_type;
  using Chosen = std::conditional_t<std::is_void_v<P>, Precision<T>, P>;
  return Sharded<std::remove_const_t<Model>, Sharding, T, typename Whole::memory_space, Chosen>(
      const_cast<std::remove_const_t<Model>&>(model), std::move(sharding), std::move(options), {});
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
