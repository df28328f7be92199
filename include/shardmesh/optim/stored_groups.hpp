// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/state/live_values.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The parameter groups of a state that was saved, in PyTorch's nested form (`param_groups.<n>.<option>`,
/// with lists of parameters) or flattened (`param_groups.<parameter>.<option>`).
/// @tparam Load  `LiveLoad`; a template, so that it is compiled only where there is an optimizer.
template <class Load>
class StoredGroups {
 public:
  struct Group {
    std::string key;  ///< of the options, up to their names: "optim.param_groups.0."
    Value::Dict options;
    bool has_parameters = true;
    bool used = false;
  };

  /// @param flattened  how to read "param_groups.0.lr", if a group is numbered or a parameter named 0.
  /// @throws InvalidArgument if these are no groups.
  StoredGroups(Load const& load, bool flattened)
      : prefix_(load.prefix + std::string(root) + "."), flattened_(flattened) {
    for (auto const& [name, value] : load.found) {
      if (name.size() > root.size()) {
        add_option(name.substr(root.size() + 1), value);
      } else if (auto const* const list = value.template get<Value::List>()) {
        for (std::size_t i = 0; i < list->size(); ++i) {
          add_group(by_index_, std::to_string(i), (*list)[i]);
        }
      } else if (auto const* const dict = value.template get<Value::Dict>()) {
        for (auto const& [key, group] : *dict) {
          add_group(is_number(key) && !flattened ? by_index_ : by_parameter_, key, group);
        }
      } else {
        throw InvalidArgument("shardmesh::Optimizer: \"" + load.prefix + std::string(root) +
                              "\" is of the kind " + std::string(value.kind()) +
                              ", not a list of groups");
      }
    }
    for (std::string const& index : by_index_.keys()) {
      list_parameters(by_index_.at(index));
    }
  }

  /// The group of a parameter; nullptr if none has it.
  [[nodiscard]] Group* of(std::string const& parameter) {
    std::size_t const* const at = by_parameter_.find(parameter);
    return at == nullptr ? nullptr : &groups_[*at];
  }

  /// The group for one without parameters, by its number. Where that one belongs to parameters of
  /// others, the next without parameters; ask for it last.
  [[nodiscard]] Group* at(std::size_t number) {
    std::size_t const* const at = by_index_.find(std::to_string(number));
    Group* const same = at == nullptr ? nullptr : &groups_[*at];
    if (same != nullptr && !same->used) {
      return same;
    }
    for (Group& group : groups_) {
      if (!group.has_parameters && !group.used) {
        return &group;
      }
    }
    return same;
  }

  [[nodiscard]] std::vector<Group> const& groups() const noexcept { return groups_; }

  static constexpr std::string_view root = "param_groups";

 private:
  [[nodiscard]] static bool is_number(std::string const& text) {
    return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
  }

  std::size_t group_of(KeyMap<std::size_t>& names, std::string const& name) {
    std::size_t const at = names.add(name, groups_.size());
    if (at == groups_.size()) {
      groups_.push_back({prefix_ + name + ".", {}});
    }
    return at;
  }

  void add_group(KeyMap<std::size_t>& names, std::string const& name, Value const& options) {
    if (auto const* const dict = options.get<Value::Dict>()) {
      std::size_t const at = group_of(names, name);
      groups_[at].options.insert(groups_[at].options.end(), dict->begin(), dict->end());
    } else if (options.get<Value::None>() == nullptr) {
      throw InvalidArgument("shardmesh::Optimizer: \"" + prefix_ + name + "\" is of the kind " +
                            std::string(options.kind()) + ", not a group of options");
    }
  }

  /// @param name  "<number>.<option>" or "<parameter>.<option>"; options have no dots.
  void add_option(std::string const& name, Value const& value) {
    std::size_t const first = name.find('.');
    bool const is_nested = !flattened_ && first != name.npos && first == name.rfind('.') &&
                           is_number(name.substr(0, first));
    std::size_t const dot = is_nested ? first : name.rfind('.');
    if (dot == name.npos) {
      return;
    }
    std::size_t const at = group_of(is_nested ? by_index_ : by_parameter_, name.substr(0, dot));
    groups_[at].options.emplace_back(name.substr(dot + 1), value);
  }

  void list_parameters(std::size_t at) {
    for (auto const& [name, value] : groups_[at].options) {
      if (name != "params") {
        continue;
      }
      auto const* const list = value.template get<Value::List>();
      groups_[at].has_parameters = list == nullptr || !list->empty();
      for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
        auto const* const parameter = (*list)[i].template get<std::string>();
        if (parameter == nullptr) {
          throw InvalidArgument(
              "shardmesh::Optimizer: \"" + groups_[at].key + "params\" lists " +
              to_string((*list)[i]) +
              " instead of the name of a parameter; save the state with names, as "
              "PyTorch's get_optimizer_state_dict gives it");
        }
        by_parameter_.add(*parameter, at);
      }
    }
  }

  std::string prefix_;
  bool flattened_;
  std::vector<Group> groups_;
  KeyMap<std::size_t> by_index_;
  KeyMap<std::size_t> by_parameter_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
