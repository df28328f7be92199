// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/optim/hyper_parameters.hpp>
#include <shardmesh/optim/stored_groups.hpp>
#include <shardmesh/state/live_values.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What an optimizer, its copies and the state dicts that were made of it share, besides tensors.
template <class Options>
struct OptimizerCore {
  struct Group {
    Options options;
    std::size_t first = 0;  ///< of its parameters, among those of all groups
    std::size_t count = 0;
    Value::Dict carried = {};  ///< options of a loaded state that `Options` has not
  };
  std::vector<Group> groups;
  std::vector<Tensor<float>> steps;  ///< by parameter: 0-d, on the host, never sharded
};

/// PyTorch's two forms of the state of an optimizer.
enum class OptimizerForm : unsigned char { nested, flattened };

[[nodiscard]] inline std::string joined(std::vector<std::string> const& names) {
  std::string text;
  for (std::string const& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  return text.empty() ? "no state" : text;
}

/// The hyper-parameters of an optimizer as values of a state dict.
template <class Options>
class OptimizerValues final : public LiveValues {
  using Core = OptimizerCore<Options>;
  using Group = typename Core::Group;

 public:
  /// @param names  of each parameter in the state dict; a flat one may stand for several.
  OptimizerValues(std::shared_ptr<Core> core,
                  OptimizerForm form,
                  std::vector<std::vector<std::string>> names)
      : core_(std::move(core)), form_(form), names_(std::move(names)) {}

  [[nodiscard]] std::string root() const override {
    return std::string(StoredGroups<LiveLoad>::root);
  }

  [[nodiscard]] std::vector<Place> places() const override { return places_of(core_->groups); }

  [[nodiscard]] Value read(std::size_t group, std::string const& name) const override {
    Group const& from = core_->groups.at(group);
    if (name == "params") {
      Value::List list;
      for (std::string const& parameter : parameters(from)) {
        list.emplace_back(parameter);
      }
      return list;
    }
    for (auto const& [carried, value] : from.carried) {
      if (carried == name) {
        return value;
      }
    }
    Options options = from.options;
    HyperParameterPicker picker{name, {}};
    options.visit(picker);
    return picker.found ? *picker.found : Value();
  }

  void write(std::size_t group, std::string const& name, Value value) override {
    Group& to = core_->groups.at(group);
    std::string const prefix = root() + "." + std::to_string(group) + ".";
    if (name == "params") {
      throw InvalidArgument(who() + "\"" + prefix +
                            "params\" are the names of the parameters; they cannot be set");
    }
    KeyList others;
    for (auto const& [option, is_carried] : option_names(to)) {
      if (option != name) {
        others.add(option);
      }
    }
    Value::Dict const given{{name, std::move(value)}};
    HyperParameterReader reader(given, prefix, others);
    Options options = to.options;
    options.visit(reader);
    check(options, to, prefix);
    Value::Dict carried = std::move(reader).carried();
    for (auto const& one : to.carried) {
      if (one.first != name) {
        carried.push_back(one);
      }
    }
    to.options = std::move(options);
    to.carried = std::move(carried);
  }

  [[nodiscard]] std::unique_ptr<LivePlan> prepare(LiveLoad& load) override {
    StoredGroups<LiveLoad> stored(load, form_ == OptimizerForm::flattened);
    auto plan = std::make_unique<Plan>(core_, *this);
    for (bool const with_parameters : {true, false}) {
      for (std::size_t g = 0; g < core_->groups.size(); ++g) {
        Group const& group = core_->groups[g];
        KeyList const unwanted = unwanted_of(group, g, load);
        bool const is_wanted = unwanted.keys().size() < option_names(group).size();
        if (is_wanted && (group.count > 0) == with_parameters) {
          read_group(g, stored, unwanted, load, *plan);
        }
      }
    }
    for (StoredGroups<LiveLoad>::Group const& group : stored.groups()) {
      load.asked.add(group.key, group.used ? char{1} : char{0});
    }
    if (!Options::counts_steps) {  // buffers that were loaded hold something
      for (auto const& [parameter, name] : load.tensors) {
        plan->stepped.push_back(parameter);
      }
    }
    return plan;
  }

  [[nodiscard]] std::shared_ptr<LiveValues> renamed(
      std::vector<std::pair<std::string, std::vector<std::string>>> const& names) const override {
    KeyMap<std::vector<std::string>> by_name;
    for (auto const& [name, others] : names) {
      by_name.add(name, others);
    }
    std::vector<std::vector<std::string>> all;
    for (auto const& own : names_) {
      all.emplace_back();
      for (std::string const& name : own) {
        std::vector<std::string> const* const others = by_name.find(name);
        if (others == nullptr) {
          all.back().push_back(name);
        } else {
          all.back().insert(all.back().end(), others->begin(), others->end());
        }
      }
    }
    return std::make_shared<OptimizerValues>(core_, form_, std::move(all));
  }

 private:
  struct Plan final : LivePlan {
    Plan(std::shared_ptr<Core> of, OptimizerValues const& with)
        : core(std::move(of)), values(with) {}
    [[nodiscard]] std::vector<Place> places() const override {
      std::vector<Group> after = core->groups;
      for (auto const& [g, group] : groups) {
        after[g] = group;
      }
      return values.places_of(after);
    }
    void apply() noexcept override {
      for (auto& [g, group] : groups) {
        core->groups[g].options = std::move(group.options);
        core->groups[g].carried = std::move(group.carried);
      }
      for (std::size_t const parameter : stepped) {
        float& step = core->steps[parameter].span()[0];
        step = step < 1 ? 1 : step;
      }
    }
    std::shared_ptr<Core> core;
    OptimizerValues const& values;
    std::vector<std::pair<std::size_t, Group>> groups;
    std::vector<std::size_t> stepped;
  };

  [[nodiscard]] std::vector<Place> places_of(std::vector<Group> const& groups) const {
    std::vector<Place> places;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      std::vector<std::pair<std::string, bool>> const options = option_names(groups[g]);
      if (form_ == OptimizerForm::nested) {
        auto const index = static_cast<index_t>(g);
        for (auto const& [option, is_carried] : options) {
          places.push_back({{root(), index, option}, g, option, is_carried});
        }
        places.push_back({{root(), index, "params"}, g, "params", false});
        continue;
      }
      for (std::string const& parameter : parameters(groups[g])) {
        for (auto const& [option, is_carried] : options) {
          places.push_back({{root() + "." + parameter + "." + option}, g, option, is_carried});
        }
      }
    }
    return places;
  }

  [[nodiscard]] static std::string who() {
    return std::string("shardmesh::") + Options::name + ": ";
  }

  /// The names of all options of a group, in order, and whether each is only carried along.
  [[nodiscard]] static std::vector<std::pair<std::string, bool>> option_names(Group const& group) {
    std::vector<std::pair<std::string, bool>> names;
    KeyList known;
    for (auto const& [name, value] : hyper_parameters(group.options)) {
      names.emplace_back(name, false);
      known.add(name);
    }
    for (auto const& [name, value] : group.carried) {
      if (!known.contains(name)) {
        names.emplace_back(name, true);
      }
    }
    return names;
  }

  [[nodiscard]] std::vector<std::string> parameters(Group const& group) const {
    std::vector<std::string> names;
    for (std::size_t i = group.first; i < group.first + group.count; ++i) {
      names.insert(names.end(), names_[i].begin(), names_[i].end());
    }
    return names;
  }

  /// Hyper-parameters that the state dict does not have: they stay as they are.
  [[nodiscard]] static KeyList unwanted_of(Group const& group,
                                           std::size_t g,
                                           LiveLoad const& load) {
    KeyList unwanted;
    for (auto const& [name, is_carried] : option_names(group)) {
      if (!load.wants(g, name)) {
        unwanted.add(name);
      }
    }
    return unwanted;
  }

  /// What the options of one stored group come to.
  [[nodiscard]] Group options_of(Group const& group,
                                 StoredGroups<LiveLoad>::Group& stored,
                                 KeyList const& unwanted,
                                 std::string const& key,
                                 LiveLoad& load) const {
    Group one = group;
    HyperParameterReader reader(stored.options, stored.key, unwanted);
    one.options.visit(reader);
    for (std::string const& name : reader.missing()) {
      load.missing.push_back({key + name, {}});
    }
    one.carried = std::move(reader).carried();
    check(one.options, group, stored.key);
    stored.used = true;
    return one;
  }

  void read_group(std::size_t g,
                  StoredGroups<LiveLoad>& stored,
                  KeyList const& unwanted,
                  LiveLoad& load,
                  Plan& plan) const {
    Group const& group = core_->groups[g];
    std::string const all = load.prefix + root() + ".";
    std::string const key = all + std::to_string(g) + ".";
    if (group.count == 0) {
      if (StoredGroups<LiveLoad>::Group* const found = stored.at(g)) {
        plan.groups.emplace_back(g, options_of(group, *found, unwanted, key, load));
      } else {
        load.missing.push_back({key + "params", "there is no group of this number"});
      }
      return;
    }
    std::vector<std::pair<std::size_t, Group>> made;
    StoredGroups<LiveLoad>::Group const* last = nullptr;
    bool missed = false;
    for (std::string const& parameter : parameters(group)) {
      StoredGroups<LiveLoad>::Group* const found = stored.of(parameter);
      if (found == nullptr) {
        if (!missed) {
          std::string const flattened = all + parameter + "." + option_names(group).front().first;
          load.missing.push_back({form_ == OptimizerForm::nested ? key + "params" : flattened,
                                  "no group of the state has the parameter \"" + parameter + "\""});
        }
        missed = true;
        continue;
      }
      if (found == last) {
        continue;
      }
      std::string const own = form_ == OptimizerForm::nested ? key : all + parameter + ".";
      Group one = options_of(group, *found, unwanted, own, load);
      if (made.empty()) {
        made.emplace_back(g, std::move(one));
      } else {
        expect_equal(one, made.front().second, parameter, found->key, last->key);
      }
      last = found;
    }
    for (auto& one : made) {
      plan.groups.push_back(std::move(one));
    }
  }

  static void expect_equal(Group const& one,
                           Group const& other,
                           std::string const& parameter,
                           std::string const& key,
                           std::string const& other_key) {
    if (hyper_parameters(one.options) != hyper_parameters(other.options) ||
        one.carried != other.carried) {
      throw InvalidArgument(who() + "the hyper-parameters of \"" + parameter +
                            "\" differ from those of others in its group (" + key + "* and " +
                            other_key + "*); put it in a group of its own");
    }
  }

  /// @param key  of the options, for messages.
  static void check(Options const& options, Group const& group, std::string const& key) {
    try {
      options.check();
    } catch (InvalidArgument const& error) {
      throw InvalidArgument(std::string(error.what()) + " (read from \"" + key + "*\")");
    }
    if (options.state_names() != group.options.state_names()) {
      throw InvalidArgument(who() + "the state was written with options (\"" + key +
                            "*\") that keep " + joined(options.state_names()) + ", these keep " +
                            joined(group.options.state_names()) +
                            "; construct the optimizer with the options of the state");
    }
  }

  std::shared_ptr<Core> core_;
  OptimizerForm form_;
  std::vector<std::vector<std::string>> names_;  // by parameter
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
