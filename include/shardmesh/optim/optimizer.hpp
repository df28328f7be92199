// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/range.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/optim/optimizer_values.hpp>
#include <shardmesh/optim/parameter_groups.hpp>
#include <shardmesh/state/live_values.hpp>
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
/// The state exists from the beginning, all zero: `state_dict()` is what would be loaded. A state dict
/// refers to the optimizer, to hyper-parameters as to tensors: loading into it sets both, saving it
/// writes what both are by then. It may outlive the optimizer. Optimizers may be copied; copies share
/// parameters, state and hyper-parameters, as tensors do.
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
  template <detail::ModelType Model>
  explicit Optimizer(Model& model, Options options = {})
      : Optimizer(named_parameters<Parameter>(model), options) {}

  /// Tied parameters, several names of the same elements, are one, under the first name.
  /// @throws InvalidArgument if an option makes no sense, or two parameters have the same name.
  explicit Optimizer(std::vector<NamedParameter<Parameter>> parameters, Options options = {})
      : Optimizer(std::vector<Group>{Group{std::move(parameters), options}}) {}

  /// Of groups with hyper-parameters of their own.
  /// @throws InvalidArgument if an option makes no sense, or a parameter is in two groups.
  explicit Optimizer(std::vector<Group> const& groups);

  /// All parameters, group by group.
  [[nodiscard]] std::vector<NamedParameter<Parameter>> const& parameters() const noexcept {
    return parameters_;
  }
  [[nodiscard]] std::size_t groups() const noexcept { return core_->groups.size(); }

  /// @{ Hyper-parameters of a group; they may be changed between steps (a schedule of `lr`), but not
  /// so that other state is needed.
  [[nodiscard]] Options const& options(std::size_t group = 0) const {
    return core_->groups.at(group).options;
  }
  [[nodiscard]] Options& options(std::size_t group = 0) { return core_->groups.at(group).options; }
  /// @}

  /// @{ Options of a group that a loaded state had and this optimizer has not, such as a scheduler's
  /// `initial_lr`: they are saved with its own. A scheduler may read and add some.
  [[nodiscard]] Value::Dict const& carried_options(std::size_t group = 0) const {
    return core_->groups.at(group).carried;
  }
  [[nodiscard]] Value::Dict& carried_options(std::size_t group = 0) {
    return core_->groups.at(group).carried;
  }
  /// @}

  /// One step, with a gradient for each of `parameters()`, of the same local shape. No communication.
  /// @param stream where the parameters, gradients and state are in order.
  /// @throws ShapeError if a gradient is missing or has another local shape; InvalidArgument if
  ///         options were changed so that they need other state. Nothing is changed then.
  void step(std::vector<Parameter> const& gradients, Stream stream = {});

  /// PyTorch's nested form: `state.PARAMETER.NAME`, `param_groups.GROUP.OPTION`. `step` is a
  /// 0-d tensor in host memory, never sharded. Complete before the first step, too. A load finds groups
  /// by the names of their parameters, one without parameters by its number.
  /// A rank outside the meshes of the parameters does not train: it has no `step` of them, and no options if
  /// it is outside all of them.
  [[nodiscard]] StateDict state_dict() const { return state_dict(names()); }

  /// The same with other names of the parameters, one for each of `parameters()`.
  [[nodiscard]] StateDict state_dict(std::vector<std::string> const& names) const;

  /// PyTorch's flattened form (`flatten_optimizer_state_dict`), which does not depend on the grouping:
  /// `state.PARAMETER.NAME`, `param_groups.PARAMETER.OPTION`, each key a single name. It has no
  /// place for the options of a group without parameters.
  [[nodiscard]] StateDict flattened_state_dict() const { return flattened_state_dict(names()); }

  /// The same with other names of the parameters, one for each of `parameters()`.
  [[nodiscard]] StateDict flattened_state_dict(std::vector<std::string> const& names) const;

 private:
  [[nodiscard]] std::vector<std::string> names() const;

  [[nodiscard]] std::shared_ptr<LiveValues> values_of(detail::OptimizerForm form,
                                                      std::vector<std::string> const& names) const;

  /// Does this rank hold a part of a parameter, be it an empty one?
  [[nodiscard]] bool takes_part(std::size_t parameter) const {
    return AnyTensor(parameters_[parameter].value).is_member();
  }

  void insert_options(std::shared_ptr<LiveValues> const& values, StateDict& dict) const;

  void check_new(NamedParameter<Parameter> const& parameter,
                 detail::SeenParameters<Parameter> const& seen) const;

  /// To the last group.
  void add(NamedParameter<Parameter> const& parameter);

  void check(std::vector<Parameter> const& gradients) const;

  /// f(parameter, name, tensor), in PyTorch's order.
  template <class F>
  void for_each_state(F&& f) const {
    for (auto const& group : core_->groups) {
      std::vector<std::string> const names = group.options.state_names();
      for (std::size_t i = group.first; i < group.first + group.count; ++i) {
        if (Options::counts_steps && takes_part(i)) {
          f(i, "step", AnyTensor(core_->steps[i]));
        }
        for (std::size_t j = 0; j < names.size() && j < state_[i].size(); ++j) {
          f(i, names[j], AnyTensor(state_[i][j]));
        }
      }
    }
  }

  std::vector<NamedParameter<Parameter>> parameters_;
  std::vector<std::vector<Parameter>> state_;  // by parameter, in the order of `state_names()`
  std::shared_ptr<detail::OptimizerCore<Options>> core_ =
      std::make_shared<detail::OptimizerCore<Options>>();
};

template <AnyTensorType Parameter, OptimizerOptions Options>
Optimizer<Parameter, Options>::Optimizer(std::vector<Group> const& groups) {
  detail::SeenParameters<Parameter> seen;
  for (Group const& group : groups) {
    group.options.check();
    core_->groups.push_back({group.options, parameters_.size(), 0});
    for (auto const& parameter : detail::without_ties(group.parameters)) {
      check_new(parameter, seen);
      seen.add(parameter);
      add(parameter);
    }
  }
}

template <AnyTensorType Parameter, OptimizerOptions Options>
void Optimizer<Parameter, Options>::step(std::vector<Parameter> const& gradients, Stream stream) {
  detail::Range const range("step");
  check(gradients);
  for (auto const& group : core_->groups) {
    for (std::size_t i = group.first; i < group.first + group.count; ++i) {
      float& count = core_->steps[i].span()[0];
      count += 1;
      auto const& weights = local_part(parameters_[i].value);
      UpdateOperands operands{weights.data(), local_part(gradients[i]).data(), {}, double{count}};
      for (Parameter const& one : state_[i]) {
        operands.state.push_back(local_part(one).data());
      }
      Space::for_each_index(weights.size(), group.options.update(operands), stream);
    }
  }
}

template <AnyTensorType Parameter, OptimizerOptions Options>
auto Optimizer<Parameter, Options>::state_dict(std::vector<std::string> const& names) const
    -> StateDict {
  StateDict dict;
  auto const values = values_of(detail::OptimizerForm::nested, names);
  for_each_state([&](std::size_t i, std::string const& name, AnyTensor const& tensor) {
    dict.insert({"state", names[i], name}, {tensor, {values, i, name, 3}});
  });
  insert_options(values, dict);
  return dict;
}

template <AnyTensorType Parameter, OptimizerOptions Options>
auto Optimizer<Parameter, Options>::flattened_state_dict(
    std::vector<std::string> const& names) const -> StateDict {
  StateDict dict;
  auto const values = values_of(detail::OptimizerForm::flattened, names);
  for_each_state([&](std::size_t i, std::string const& name, AnyTensor const& tensor) {
    dict.insert("state." + names[i] + "." + name, {tensor, {values, i, name, 1}});
  });
  insert_options(values, dict);
  return dict;
}

template <AnyTensorType Parameter, OptimizerOptions Options>
auto Optimizer<Parameter, Options>::names() const -> std::vector<std::string> {
  std::vector<std::string> names;
  for (auto const& parameter : parameters_) {
    names.push_back(parameter.name);
  }
  return names;
}

template <AnyTensorType Parameter, OptimizerOptions Options>
auto Optimizer<Parameter, Options>::values_of(detail::OptimizerForm form,
                                              std::vector<std::string> const& names) const
    -> std::shared_ptr<LiveValues> {
  std::vector<std::vector<std::string>> each;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    each.push_back({names.at(i)});
  }
  return std::make_shared<detail::OptimizerValues<Options>>(core_, form, std::move(each));
}

template <AnyTensorType Parameter, OptimizerOptions Options>
void Optimizer<Parameter, Options>::insert_options(std::shared_ptr<LiveValues> const& values,
                                                   StateDict& dict) const {
  bool trains = parameters_.empty();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    trains = trains || takes_part(i);
  }
  if (!trains) {
    return;
  }
  for (LiveValues::Place& place : values->places()) {
    std::size_t const depth = place.path.size();
    dict.insert(std::move(place.path),
                LiveLink{values, place.group, std::move(place.name), depth, place.is_carried});
  }
}

template <AnyTensorType Parameter, OptimizerOptions Options>
void Optimizer<Parameter, Options>::check_new(NamedParameter<Parameter> const& parameter,
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

template <AnyTensorType Parameter, OptimizerOptions Options>
void Optimizer<Parameter, Options>::add(NamedParameter<Parameter> const& parameter) {
  auto& group = core_->groups.back();
  core_->steps.push_back(Tensor<float>::zeros({}));
  state_.emplace_back();
  for (std::size_t i = 0; i < group.options.state_names().size(); ++i) {
    state_.back().push_back(zeros_like(parameter.value));
  }
  parameters_.push_back(parameter);
  ++group.count;
}

template <AnyTensorType Parameter, OptimizerOptions Options>
void Optimizer<Parameter, Options>::check(std::vector<Parameter> const& gradients) const {
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
  for (auto const& group : core_->groups) {
    group.options.check();
    if (group.count > 0 && state_[group.first].size() != group.options.state_names().size()) {
      throw InvalidArgument(who + "the options were changed so that they need other state (" +
                            detail::joined(group.options.state_names()) +
                            "); construct an optimizer with them");
    }
  }
}

}  // namespace v0
}  // namespace shardmesh
