// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/visit.hpp>

namespace shardmesh::inline v0 {

/// Hyper-parameters of `Adam`, with PyTorch's names and defaults.
struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  ///< added to the gradient
};

/// A parameter with its name in the model.
template <class Parameter>
struct NamedParameter {
  std::string name;
  Parameter value;
};

/// The tensors of a model that are of type `Parameter`, with their names, in the order of the model.
template <class Parameter, class Model>
[[nodiscard]] std::vector<NamedParameter<Parameter>> named_parameters(Model& model) {
  std::vector<NamedParameter<Parameter>> found;
  for_each_leaf(model, [&found]<class Leaf>(std::string const& name, Leaf& leaf) {
    if constexpr (std::is_same_v<std::remove_cv_t<Leaf>, Parameter>) {
      found.push_back({name, leaf});
    }
  });
  return found;
}

/// Adam (Kingma and Ba, https://arxiv.org/abs/1412.6980) on the local parts of sharded parameters:
/// the moments are sharded as the parameters are, so a step needs no communication. State names,
/// order and arithmetic (float32, bias correction in double) are those of `torch.optim.Adam`.
///
/// @tparam Parameter a `DistTensor<float, ...>` (or a plain `Tensor<float>`).
template <class Parameter>
class Adam {
  static_assert(std::is_same_v<typename Parameter::value_type, float>,
                "shardmesh::Adam: parameters must be float; keep low-precision copies beside them");

 public:
  template <class Model>
  explicit Adam(Model& model, AdamOptions options = {})
      : parameters_(named_parameters<Parameter>(model)), options_(options) {
    for (auto const& parameter : parameters_) {
      slots_.push_back(
          {zeros_like(parameter.value), zeros_like(parameter.value), Tensor<float>::zeros({})});
    }
  }

  [[nodiscard]] AdamOptions const& options() const noexcept { return options_; }
  [[nodiscard]] std::vector<NamedParameter<Parameter>> const& parameters() const noexcept {
    return parameters_;
  }

  /// One step with gradients of the same shapes and placements as the parameters, in their order.
  /// @throws ShapeError if a gradient is missing or has another local shape.
  void step(std::vector<Parameter> const& gradients) {
    if (gradients.size() != parameters_.size()) {
      throw ShapeError("shardmesh::Adam::step: " + std::to_string(gradients.size()) +
                       " gradients for " + std::to_string(parameters_.size()) +
                       " parameters; give one for each, in order");
    }
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      if (!(local(gradients[i]).shape() == local(parameters_[i].value).shape())) {
        throw ShapeError("shardmesh::Adam::step: the gradient of \"" + parameters_[i].name +
                         "\" has local shape " + to_string(local(gradients[i]).shape()) +
                         ", the parameter " + to_string(local(parameters_[i].value).shape()));
      }
    }
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      update(parameters_[i].value, gradients[i], slots_[i]);
    }
  }

  /// PyTorch's nested form: `state.<name>.step|exp_avg|exp_avg_sq`, `param_groups.0.<option>`.
  [[nodiscard]] StateDict state_dict() const {
    StateDict dict;
    Value::List names;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      std::string const& name = parameters_[i].name;
      names.emplace_back(name);
      dict.insert({"state", name, "step"}, AnyTensor(slots_[i].step));
      dict.insert({"state", name, "exp_avg"}, AnyTensor(slots_[i].exp_avg));
      dict.insert({"state", name, "exp_avg_sq"}, AnyTensor(slots_[i].exp_avg_sq));
    }
    auto const option = [&dict](char const* name, Value value) {
      dict.insert({"param_groups", index_t{0}, name}, std::move(value));
    };
    option("lr", options_.lr);
    option("betas", Value::Tuple{{options_.beta1, options_.beta2}});
    option("eps", options_.eps);
    option("weight_decay", options_.weight_decay);
    option("amsgrad", false);
    option("maximize", false);
    option("foreach", Value());
    option("capturable", false);
    option("differentiable", false);
    option("fused", Value());
    option("decoupled_weight_decay", false);
    option("params", names);
    return dict;
  }

  /// Takes the hyper-parameters of a state dict of this form. The tensors of `state_dict()` are the
  /// optimizer's own, so loading into it has already set them.
  /// @throws KeyError if an option is missing; InvalidArgument if one is of the wrong kind, or asks
  ///         for a variant (amsgrad, maximize, decoupled weight decay) that this class has not.
  void load_options(StateDict const& dict, std::string const& prefix = "param_groups.0.") {
    auto const option = [&](char const* name) -> Value const& {
      return dict.at(prefix + name).plain();
    };
    AdamOptions loaded;
    loaded.lr = option("lr").template as<double>();
    auto const& betas = option("betas").template as<Value::Tuple>().items;
    if (betas.size() != 2) {
      throw InvalidArgument("shardmesh::Adam::load_options: \"" + prefix + "betas\" holds " +
                            std::to_string(betas.size()) + " numbers instead of 2");
    }
    loaded.beta1 = betas[0].template as<double>();
    loaded.beta2 = betas[1].template as<double>();
    loaded.eps = option("eps").template as<double>();
    loaded.weight_decay = number(option("weight_decay"));
    for (char const* variant : {"amsgrad", "maximize", "decoupled_weight_decay"}) {
      if (dict.contains(prefix + variant) && option(variant) == Value(true)) {
        throw InvalidArgument("shardmesh::Adam::load_options: the state was written with " +
                              std::string(variant) + ", which this optimizer does not do");
      }
    }
    options_ = loaded;
  }

 private:
  struct Slot {
    Parameter exp_avg;
    Parameter exp_avg_sq;
    Tensor<float> step;  ///< 0-d, on the host, never sharded
  };

  [[nodiscard]] static double number(Value const& value) {
    auto const* integer = value.template get<std::int64_t>();
    return integer != nullptr ? static_cast<double>(*integer) : value.template as<double>();
  }

  template <class P>
  [[nodiscard]] static auto const& local(P const& parameter) {
    if constexpr (AnyDistTensor<P>) {
      return parameter.to_local();
    } else {
      return parameter;
    }
  }

  [[nodiscard]] static Parameter zeros_like(Parameter const& parameter) {
    using Local = std::remove_cvref_t<decltype(local(parameter))>;
    Local zeros = Local::zeros(local(parameter).shape());
    if constexpr (AnyDistTensor<Parameter>) {
      return Parameter(parameter.mesh(), parameter.layout(), zeros);
    } else {
      return zeros;
    }
  }

  /// The arithmetic of torch.optim.Adam's single-tensor step, on host copies of the local parts;
  /// fused where PyTorch fuses, so that the moments agree where terms cancel.
  void update(Parameter const& parameter, Parameter const& gradient, Slot& slot) {
    float& step = slot.step.span()[0];
    step += 1.0F;
    auto const count = static_cast<double>(step);
    double const correction1 = 1.0 - std::pow(options_.beta1, count);
    auto const spread = static_cast<float>(std::sqrt(1.0 - std::pow(options_.beta2, count)));
    auto const eps = static_cast<float>(options_.eps);
    auto const rate = static_cast<float>(options_.lr / correction1);
    auto const decay = static_cast<float>(options_.weight_decay);
    auto const beta2 = static_cast<float>(options_.beta2);
    auto const keep1 = static_cast<float>(1.0 - options_.beta1);
    auto const keep2 = static_cast<float>(1.0 - options_.beta2);

    auto const weights = to_host(local(parameter));
    auto const gradients = to_host(local(gradient));
    auto const averages = to_host(local(slot.exp_avg));
    auto const squares = to_host(local(slot.exp_avg_sq));
    for (std::size_t i = 0; i < weights.span().size(); ++i) {
      float& weight = weights.span()[i];
      float& average = averages.span()[i];
      float& square = squares.span()[i];
      float const slope = std::fma(weight, decay, gradients.span()[i]);
      average = std::fma(keep1, slope - average, average);
      square = square * beta2 + keep2 * slope * slope;
      weight -= rate * (average / (std::sqrt(square) / spread + eps));
    }
    put_back(weights, local(parameter));
    put_back(averages, local(slot.exp_avg));
    put_back(squares, local(slot.exp_avg_sq));
  }

  template <class Space>
  static void put_back(Tensor<float> const& from, Tensor<float, Space> const& to) {
    CopyStream<Space, HostMemory> const stream{};
    copy_bytes<Space, HostMemory>(to.data(), from.data(), from.bytes(), stream);
    stream.synchronize();
  }

  std::vector<NamedParameter<Parameter>> parameters_;
  std::vector<Slot> slots_;
  AdamOptions options_;
};

}  // namespace shardmesh::inline v0
