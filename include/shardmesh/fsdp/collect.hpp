// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/state/visit.hpp>
#include <shardmesh/tensor/fused_exchange.hpp>

namespace shardmesh::inline v0::detail {

/// The tensor type of a model's parameters: `Model::parameter_type`, or the first argument of a
/// model that is a template of its parameters.
template <class Model>
struct ModelParameter {
  static_assert(!std::is_same_v<Model, Model>,
                "shardmesh::fully_shard: the type of this model's parameters is not known; add "
                "`using parameter_type = shardmesh::Tensor<float>;` (element type and memory space "
                "as they are) to the struct");
};
template <class Model>
  requires AnyPlainTensor<typename Model::parameter_type>
struct ModelParameter<Model> {
  using type = typename Model::parameter_type;
};
template <template <class...> class Model, class T, class Space, class... More>
  requires(!requires { typename Model<Tensor<T, Space>, More...>::parameter_type; })
struct ModelParameter<Model<Tensor<T, Space>, More...>> {
  using type = Tensor<T, Space>;
};

/// A parameter of a model and the members that hold it: several, if they are tied.
template <class T, class Space>
struct FoundParameter {
  std::vector<std::string> names;
  std::vector<Tensor<T, Space>*> leaves;
  Role role = Role::parameter;
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
    check_agreement(*group, "shardmesh::fully_shard", "the parameters " + text);
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
    FusedExchange("shardmesh::fully_shard: values of the first rank", plans, group->rank())
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

/// Calls `f(name, leaf, role)` for every leaf of a model, with the sharded tensor in the place of
/// the member for each parameter that has a slot.
template <class Model, class Slots, class F>
void for_each_slot(Model& model, Slots const& slots, F&& f) {
  using Slot = std::remove_cvref_t<decltype(*slots.front())>;
  using Whole = std::remove_cvref_t<decltype(*slots.front()->leaves.front())>;
  std::unordered_map<void const*, Slot*> slot_of;
  for (auto const& slot : slots) {
    for (auto const* leaf : slot->leaves) {
      slot_of.emplace(leaf, slot.get());
    }
  }
  for_each_leaf(model, [&]<class Leaf>(std::string const& name, Leaf& leaf, Role role) {
    if constexpr (std::is_same_v<Leaf, Whole>) {
      if (auto const found = slot_of.find(&leaf); found != slot_of.end()) {
        f(name, found->second->sharded, role);
        return;
      }
    }
    f(name, leaf, role);
  });
}

/// Deduces what the user did not say and makes the sharded model.
template <template <class, class, class, class, class> class Sharded,
          class P,
          class Model,
          class Sharding>
[[nodiscard]] auto make_fully_shard(Model& model, Sharding sharding, FullyShardOptions options) {
  using Whole = typename ModelParameter<Model>::type;
  using T = typename Whole::value_type;
  using Chosen = std::conditional_t<std::is_void_v<P>, Precision<T>, P>;
  return Sharded<Model, Sharding, T, typename Whole::memory_space, Chosen>(
      model, std::move(sharding), std::move(options), {});
}

}  // namespace shardmesh::inline v0::detail
