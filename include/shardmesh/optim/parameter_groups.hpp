// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/core/hash_index.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/state/visit.hpp>

namespace shardmesh {
inline namespace v0 {

/// A parameter with its name in the model.
template <class Parameter>
struct NamedParameter {
  std::string name;
  Parameter value;
};

/// Parameters that are trained with the same hyper-parameters.
template <class Parameter, class Options>
struct ParameterGroup {
  std::vector<NamedParameter<Parameter>> parameters;
  Options options{};
};

namespace detail {

/// Two names of the same elements. The address alone does not tell for parts of no elements.
template <class Parameter>
[[nodiscard]] bool is_tied(Parameter const& a, Parameter const& b) {
  auto const& left = local_part(a).storage();
  auto const& right = local_part(b).storage();
  bool const same_owner = !left.owner_before(right) && !right.owner_before(left);
  bool const is_view_of_nothing = local_part(a).size() == 0 && left != nullptr;
  return same_owner && left == right && !is_view_of_nothing && a.shape() == b.shape();
}

/// Finds parameters that were seen before, under another name or in another group.
template <class Parameter>
class SeenParameters {
 public:
  /// The earlier parameter with the same elements; nullptr if there is none.
  [[nodiscard]] NamedParameter<Parameter> const* tied_to(Parameter const& parameter) const {
    std::size_t const at = by_address_.find(hash_of(parameter), [&](std::size_t position) {
      return is_tied(parameters_[position].value, parameter);
    });
    return at == HashIndex::none ? nullptr : &parameters_[at];
  }

  [[nodiscard]] bool has_name(std::string const& name) const { return names_.contains(name); }

  void add(NamedParameter<Parameter> const& parameter) {
    by_address_.make_room();
    names_.add(parameter.name);
    parameters_.push_back(parameter);
    by_address_.add(hash_of(parameter.value), parameters_.size() - 1);
  }

 private:
  [[nodiscard]] static std::size_t hash_of(Parameter const& parameter) {
    return HashIndex::hash_of_address(local_part(parameter).data());
  }

  KeyList names_;
  std::vector<NamedParameter<Parameter>> parameters_;
  HashIndex by_address_;
};

/// The parameters without those that are another name of an earlier one.
template <class Parameter>
[[nodiscard]] std::vector<NamedParameter<Parameter>> without_ties(
    std::vector<NamedParameter<Parameter>> const& parameters) {
  std::vector<NamedParameter<Parameter>> result;
  SeenParameters<Parameter> seen;
  for (auto const& one : parameters) {
    if (seen.tied_to(one.value) == nullptr) {
      seen.add(one);
      result.push_back(one);
    }
  }
  return result;
}

}  // namespace detail

/// The tensors of a model that are of type `Parameter` and have the role of a parameter (frozen ones
/// and buffers have not), with their names, in the order of the model. Tied parameters, several names
/// of the same elements, are one, under the first name.
template <class Parameter, detail::ModelType Model>
[[nodiscard]] std::vector<NamedParameter<Parameter>> named_parameters(Model& model) {
  std::vector<NamedParameter<Parameter>> found;
  for_each_leaf(model, [&found]<class Leaf>(std::string const& name, Leaf& leaf, Role role) {
    if constexpr (std::is_same_v<std::remove_cv_t<Leaf>, Parameter>) {
      if (role == Role::parameter) {
        found.push_back({name, leaf});
      }
    }
  });
  return detail::without_ties(found);
}

}  // namespace v0
}  // namespace shardmesh
