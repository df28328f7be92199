// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/optim/hyper_parameters.hpp>
#include <shardmesh/optim/parameter_groups.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/visit.hpp>
#include <shardmesh/tensor/local_part.hpp>

namespace shardmesh {
inline namespace v0 {

/// What one step of one parameter reads and writes: first elements of the local parts.
struct UpdateOperands {
  float* weight = nullptr;
  float const* gradient = nullptr;
  std::vector<float*> state;  ///< in the order of `state_names()`
  double step = 1;            ///< counts from 1
};

/// An optimizer is a struct of hyper-parameters. It has
///  - `name`, for messages; `counts_steps`: is PyTorch's scalar `step` in the state?
///  - `visit(v)`: calls `v("lr", lr)` for each hyper-parameter in the order in which PyTorch writes
///    them: double, bool, std::array<double, 2>; a `Value` for PyTorch's switches without meaning
///    here; a std::bool_constant for what a loaded state must agree on.
///  - `check()`: throws InvalidArgument if a value makes no sense.
///  - `state_names()`: what is kept for each parameter, besides `step`.
///  - `update(operands)`: a function object for `MemorySpace::for_each_index` that updates element i.
template <class O>
concept OptimizerOptions =
    std::copyable<O> && std::default_initializable<O> &&
    requires(
        O& options, O const& fixed, UpdateOperands const& operands, detail::ProbeVisitor visitor) {
      { O::name } -> std::convertible_to<char const*>;
      { O::counts_steps } -> std::convertible_to<bool>;
      { fixed.state_names() } -> std::same_as<std::vector<std::string>>;
      fixed.check();
      fixed.update(operands);
      options.visit(visitor);
    };

namespace detail {

/// @throws InvalidArgument if a hyper-parameter is out of range.
inline void expect_option(
    bool good, char const* optimizer, char const* option, double value, char const* range) {
  if (!good) {
    throw InvalidArgument(std::string("shardmesh::") + optimizer + ": " + option + " is " +
                          to_string(Value(value)) + ", it must be " + range);
  }
}

}  // namespace detail

/// An optimizer on the local parts of sharded parameters. Its state is sharded as the parameters
/// are, so a step needs no communication. Names, order and arithmetic (float32, corrections in double)
/// are those of PyTorch's optimizer of the same name, where there is one.
///
/// A step runs where the parameters are: on a device, in stream order, with the bits of the host.
/// The state exists from the beginning, all zero: `state_dict()` is what would be loaded. It may be
/// copied; copies share parameters and state, as tensors do.
///
/// @tparam Parameter `DistTensor<float, ...>`, `ShardedTensor<float, ...>` or `Tensor<float, ...>`.
/// @tparam Options hyper-parameters and arithmetic, see `OptimizerOptions`.
template <AnyTensorType Parameter, OptimizerOptions Options>
class Optimizer {
  static_assert(std::is_same_v<typename Parameter::value_type, float>,
                "shardmesh::Optimizer: parameters must be float; keep low-precision copies beside "
                "them");

 public:
  using Group = ParameterGroup<Parameter, Options>;
  using Space = typename Parameter::memory_space;
  using Stream = typename Parameter::Stream;

  /// Of all parameters of type `Parameter` of a model, see `named_parameters`.
  /// @throws InvalidArgument if an option makes no sense.
  template <Visitable Model>
  explicit Optimizer(Model& model, Options options = {})
      : Optimizer(named_parameters<Parameter>(model), options) {}

  /// Tied parameters, several names of the same elements, are one, under the first name.
  /// @throws InvalidArgument if an option makes no sense, or two parameters have the same name.
  explicit Optimizer(std::vector<NamedParameter<Parameter>> parameters, Options options = {})
      : Optimizer(std::vector<Group>{Group{std::move(parameters), options}}) {}

  /// Of groups with hyper-parameters of their own.
  /// @throws InvalidArgument if an option makes no sense, or a parameter is in two groups.
  explicit Optimizer(std::vector<Group> const& groups) {
    detail::SeenParameters<Parameter> seen;
    for (Group const& group : groups) {
      group.options.check();
      groups_.push_back({group.options, parameters_.size(), 0});
      for (auto const& parameter : detail::without_ties(group.parameters)) {
        check_new(parameter, seen);
        seen.add(parameter);
        add(parameter);
      }
    }
  }

  /// All parameters, group by group.
  [[nodiscard]] std::vector<NamedParameter<Parameter>> const& parameters() const noexcept {
    return parameters_;
  }
  [[nodiscard]] std::size_t groups() const noexcept { return groups_.size(); }

  /// @{ Hyper-parameters of a group; they may be changed between steps (a schedule of `lr`), but not
  /// so that other state is needed.
  [[nodiscard]] Options const& options(std::size_t group = 0) const {
    return groups_.at(group).options;
  }
  [[nodiscard]] Options& options(std::size_t group = 0) { return groups_.at(group).options; }
  /// @}

  /// One step, with a gradient for each of `parameters()`, of the same local shape. No communication.
  /// @param stream where the parameters, gradients and state are in order.
  /// @throws ShapeError if a gradient is missing or has another local shape; InvalidArgument if
  ///         options were changed so that they need other state. Nothing is changed then.
  void step(std::vector<Parameter> const& gradients, Stream stream = {}) {
    check(gradients);
    for (GroupRange const& group : groups_) {
      for (std::size_t i = group.first; i < group.first + group.count; ++i) {
        Slot& slot = slots_[i];
        float& count = slot.step.span()[0];
        count += 1;
        auto const& weights = local_part(parameters_[i].value);
        UpdateOperands operands{weights.data(), local_part(gradients[i]).data(), {}, double{count}};
        for (Parameter const& one : slot.state) {
          operands.state.push_back(local_part(one).data());
        }
        Space::for_each_index(weights.size(), group.options.update(operands), stream);
      }
    }
  }

  /// PyTorch's nested form: `state.<parameter>.<name>`, `param_groups.<group>.<option>`. `step` is a
  /// 0-d tensor in host memory, never sharded. Complete before the first step, too.
  [[nodiscard]] StateDict state_dict() const {
    StateDict dict;
    for_each_state(
        [&dict](std::string const& parameter, std::string const& name, AnyTensor const& tensor) {
          dict.insert({"state", parameter, name}, tensor);
        });
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      auto const index = static_cast<index_t>(g);
      for (auto const& [name, value] : hyper_parameters(groups_[g].options)) {
        dict.insert({"param_groups", index, name}, value);
      }
      Value::List names;
      for_each_name(groups_[g], [&names](std::string const& name) { names.emplace_back(name); });
      dict.insert({"param_groups", index, "params"}, std::move(names));
    }
    return dict;
  }

  /// PyTorch's flattened form (`flatten_optimizer_state_dict`), which does not depend on the grouping:
  /// `state.<parameter>.<name>`, `param_groups.<parameter>.<option>`, each key a single name.
  [[nodiscard]] StateDict flattened_state_dict() const {
    StateDict dict;
    for_each_state(
        [&dict](std::string const& parameter, std::string const& name, AnyTensor const& tensor) {
          dict.insert("state." + parameter + "." + name, tensor);
        });
    for (GroupRange const& group : groups_) {
      Value::Dict const values = hyper_parameters(group.options);
      for_each_name(group, [&](std::string const& parameter) {
        for (auto const& [name, value] : values) {
          dict.insert("param_groups." + parameter + "." + name, value);
        }
      });
    }
    return dict;
  }

  /// Takes the hyper-parameters of a state dict of the nested form. The tensors of `state_dict()` are
  /// the optimizer's own, so loading into it has already set them. Groups are found by the names of
  /// their parameters. What PyTorch's switches without meaning here say is not kept.
  /// @param prefix of the keys, such as "optim.".
  /// @throws KeyError if a hyper-parameter or a parameter is missing; InvalidArgument if a value
  ///         is of the wrong kind, makes no sense, or needs state that this optimizer has not
  ///         (amsgrad, momentum; construct it with them), or if parameters of one group were in several.
  void load_options(StateDict const& dict, std::string const& prefix = "") {
    detail::KeyMap<std::string> group_of;
    for (index_t g = 0;; ++g) {
      std::string const group = prefix + "param_groups." + std::to_string(g) + ".";
      if (!dict.contains(group + "params")) {
        break;
      }
      for (Value const& name : dict.at(group + "params").plain().template as<Value::List>()) {
        group_of.add(name.template as<std::string>(), group);
      }
    }
    load(dict, [&](std::string const& parameter) {
      std::string const* const found = group_of.find(parameter);
      if (found == nullptr) {
        throw KeyError(std::string("shardmesh::") + Options::name + ": no \"" + prefix +
                       "param_groups.<n>.params\" of the state lists the parameter \"" + parameter +
                       "\"; load a state of the same model, with the prefix of its keys");
      }
      return *found;
    });
  }

  /// The same of the flattened form.
  /// @throws as `load_options`.
  void load_flattened(StateDict const& dict, std::string const& prefix = "") {
    load(dict,
         [&](std::string const& parameter) { return prefix + "param_groups." + parameter + "."; });
  }

 private:
  struct GroupRange {
    Options options;
    std::size_t first;
    std::size_t count;
  };
  struct Slot {
    Tensor<float> step;  ///< 0-d, on the host, never sharded
    std::vector<Parameter> state;
  };

  void check_new(NamedParameter<Parameter> const& parameter,
                 detail::SeenParameters<Parameter> const& seen) const {
    std::string const who = std::string("shardmesh::") + Options::name + ": ";
    if (seen.has_name(parameter.name)) {
      throw InvalidArgument(who + "two parameters are named \"" + parameter.name +
                            "\"; a parameter is in one group, once");
    }
    if (auto const* other = seen.tied_to(parameter.value)) {
      throw InvalidArgument(who + "\"" + other->name + "\" and \"" + parameter.name +
                            "\" are the same elements, in two groups; leave one of them out");
    }
  }

  /// To the last group.
  void add(NamedParameter<Parameter> const& parameter) {
    Slot slot{Tensor<float>::zeros({}), {}};
    for (std::size_t i = 0; i < groups_.back().options.state_names().size(); ++i) {
      slot.state.push_back(zeros_like(parameter.value));
    }
    slots_.push_back(std::move(slot));
    parameters_.push_back(parameter);
    ++groups_.back().count;
  }

  void check(std::vector<Parameter> const& gradients) const {
    std::string const who = std::string("shardmesh::") + Options::name + "::step: ";
    if (gradients.size() != parameters_.size()) {
      throw ShapeError(who + std::to_string(gradients.size()) + " gradients for " +
                       std::to_string(parameters_.size()) +
                       " parameters; give one for each, in order");
    }
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      Shape const& got = local_part(gradients[i]).shape();
      Shape const& wanted = local_part(parameters_[i].value).shape();
      if (!(got == wanted)) {
        throw ShapeError(who + "the gradient of \"" + parameters_[i].name + "\" has local shape " +
                         to_string(got) + ", the parameter " + to_string(wanted) +
                         "; shard gradients as their parameters");
      }
    }
    for (GroupRange const& group : groups_) {
      group.options.check();
      if (group.count > 0 &&
          slots_[group.first].state.size() != group.options.state_names().size()) {
        throw InvalidArgument(who + "the options were changed so that they need other state (" +
                              joined(group.options.state_names()) +
                              "); construct an optimizer with them");
      }
    }
  }

  /// @param prefix_of where in `dict` the hyper-parameters of a parameter stand.
  template <class PrefixOf>
  void load(StateDict const& dict, PrefixOf const& prefix_of) {
    std::vector<Options> loaded;
    for (GroupRange const& group : groups_) {
      loaded.push_back(read(dict, group, prefix_of));
    }
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      groups_[g].options = loaded[g];
    }
    if (!Options::counts_steps) {  // the buffers that were loaded with them hold something
      for (Slot& slot : slots_) {
        slot.step.span()[0] = detail::larger(slot.step.span()[0], 1.0F);
      }
    }
  }

  template <class PrefixOf>
  [[nodiscard]] Options read(StateDict const& dict,
                             GroupRange const& group,
                             PrefixOf const& prefix_of) const {
    std::string const who = std::string("shardmesh::") + Options::name + ": ";
    Options options = group.options;
    std::string last;
    for_each_name(group, [&](std::string const& parameter) {
      std::string const prefix = prefix_of(parameter);
      if (prefix == last) {
        return;
      }
      Options one = group.options;
      one.visit(detail::HyperParameterReader(dict, prefix));
      if (!last.empty() && hyper_parameters(one) != hyper_parameters(options)) {
        throw InvalidArgument(who + "the hyper-parameters of \"" + parameter +
                              "\" differ from those of others in its group (" + prefix + "* and " +
                              last + "*); put it in a group of its own");
      }
      options = one;
      last = prefix;
    });
    options.check();
    if (options.state_names() != group.options.state_names()) {
      throw InvalidArgument(who + "the state was written with options that keep " +
                            joined(options.state_names()) + ", these keep " +
                            joined(group.options.state_names()) +
                            "; construct the optimizer with the options of the state");
    }
    return options;
  }

  [[nodiscard]] static std::string joined(std::vector<std::string> const& names) {
    std::string text;
    for (std::string const& name : names) {
      text += (text.empty() ? "" : ", ") + name;
    }
    return text.empty() ? "no state" : text;
  }

  template <class F>
  void for_each_name(GroupRange const& group, F&& f) const {
    for (std::size_t i = group.first; i < group.first + group.count; ++i) {
      f(parameters_[i].name);
    }
  }

  /// f(parameter, name, tensor), in PyTorch's order.
  template <class F>
  void for_each_state(F&& f) const {
    for (GroupRange const& group : groups_) {
      std::vector<std::string> const names = group.options.state_names();
      for (std::size_t i = group.first; i < group.first + group.count; ++i) {
        if (Options::counts_steps) {
          f(parameters_[i].name, "step", AnyTensor(slots_[i].step));
        }
        for (std::size_t j = 0; j < names.size(); ++j) {
          f(parameters_[i].name, names[j], AnyTensor(slots_[i].state[j]));
        }
      }
    }
  }

  std::vector<NamedParameter<Parameter>> parameters_;
  std::vector<Slot> slots_;
  std::vector<GroupRange> groups_;
};

}  // namespace v0
}  // namespace shardmesh
