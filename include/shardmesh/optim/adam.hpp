// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include <shardmesh/core/value.hpp>
#include <shardmesh/optim/adam_update.hpp>
#include <shardmesh/optim/optimizer.hpp>
#include <shardmesh/optim/parameter_groups.hpp>
#include <shardmesh/state/parameter_type.hpp>
#include <shardmesh/state/visit.hpp>

namespace shardmesh {
inline namespace v0 {

/// Hyper-parameters of `Adam` and `AdamW`, with PyTorch's names, defaults and meanings.
/// @tparam decoupled is the weight decay a step of its own (AdamW), or part of the gradient?
template <bool decoupled>
struct BasicAdamOptions {
  double lr = 1e-3;                         ///< learning rate, >= 0
  std::array<double, 2> betas{0.9, 0.999};  ///< how much of the running averages is kept, [0, 1)
  double eps = 1e-8;                        ///< added to the root, >= 0
  double weight_decay = decoupled ? 1e-2 : 0.0;  ///< of the weights (AdamW) or in the gradient
  bool amsgrad = false;                          ///< the largest running average so far counts
  bool maximize = false;                         ///< go up instead of down

  static constexpr char const* name = decoupled ? "AdamW" : "Adam";
  static constexpr bool counts_steps = true;

  template <class Visitor>
  void visit(Visitor&& v) {
    v("lr", lr);
    v("betas", betas);
    v("eps", eps);
    v("weight_decay", weight_decay);
    v("amsgrad", amsgrad);
    v("maximize", maximize);
    v("foreach", Value());
    v("capturable", Value(false));
    v("differentiable", Value(false));
    v("fused", Value());
    v("decoupled_weight_decay", std::bool_constant<decoupled>{});
  }

  void check() const {
    detail::expect_option(lr >= 0, name, "lr", lr, "0 or more");
    detail::expect_option(eps >= 0, name, "eps", eps, "0 or more");
    detail::expect_option(weight_decay >= 0, name, "weight_decay", weight_decay, "0 or more");
    for (double const beta : betas) {
      detail::expect_option(beta >= 0 && beta < 1, name, "betas", beta, "from 0 to below 1");
    }
  }

  [[nodiscard]] std::vector<std::string> state_names() const {
    std::vector<std::string> names{"exp_avg", "exp_avg_sq"};
    if (amsgrad) {
      names.emplace_back("max_exp_avg_sq");
    }
    return names;
  }

  [[nodiscard]] AdamUpdate update(UpdateOperands const& x) const {
    double const correction1 = 1 - std::pow(betas[0], x.step);
    double const correction2 = 1 - std::pow(betas[1], x.step);
    return {.weight = x.weight,
            .gradient = x.gradient,
            .exp_avg = x.state[0],
            .exp_avg_sq = x.state[1],
            .max_exp_avg_sq = amsgrad ? x.state[2] : nullptr,
            .rate = static_cast<float>(lr / correction1),
            .spread = static_cast<float>(std::sqrt(correction2)),
            .keep1 = static_cast<float>(1 - betas[0]),
            .beta2 = static_cast<float>(betas[1]),
            .keep2 = static_cast<float>(1 - betas[1]),
            .eps = static_cast<float>(eps),
            .decay = static_cast<float>(decoupled ? 0 : weight_decay),
            .shrink = static_cast<float>(decoupled ? 1 - lr * weight_decay : 1),
            .maximize = maximize};
  }
};

/// Options of `Adam`.
using AdamOptions = BasicAdamOptions<false>;
/// Options of `AdamW`, whose decay is decoupled.
using AdamWOptions = BasicAdamOptions<true>;

/// Adam (Kingma and Ba, https://arxiv.org/abs/1412.6980; amsgrad: https://openreview.net/forum?id=ryQu7f-RZ):
/// `torch.optim.Adam`. State: `step`, `exp_avg`, `exp_avg_sq`, and `max_exp_avg_sq` with amsgrad.
///
/// `Adam adam(net, {.lr = 0.1})` knows its parameters from the model.
template <class Parameter>
class Adam : public Optimizer<Parameter, AdamOptions> {
 public:
  using Optimizer<Parameter, AdamOptions>::Optimizer;
};
template <detail::ModelType Model>
explicit Adam(Model&, AdamOptions = {})
    -> Adam<typename detail::OptimizedParameter<std::remove_const_t<Model>>::type>;
template <class Parameter>
explicit Adam(std::vector<NamedParameter<Parameter>>, AdamOptions = {}) -> Adam<Parameter>;
template <class Parameter>
explicit Adam(std::vector<ParameterGroup<Parameter, AdamOptions>>) -> Adam<Parameter>;

/// Adam with decoupled weight decay (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101):
/// `torch.optim.AdamW`. State as `Adam`.
template <class Parameter>
class AdamW : public Optimizer<Parameter, AdamWOptions> {
 public:
  using Optimizer<Parameter, AdamWOptions>::Optimizer;
};
template <detail::ModelType Model>
explicit AdamW(Model&, AdamWOptions = {})
    -> AdamW<typename detail::OptimizedParameter<std::remove_const_t<Model>>::type>;
template <class Parameter>
explicit AdamW(std::vector<NamedParameter<Parameter>>, AdamWOptions = {}) -> AdamW<Parameter>;
template <class Parameter>
explicit AdamW(std::vector<ParameterGroup<Parameter, AdamWOptions>>) -> AdamW<Parameter>;

}  // namespace v0
}  // namespace shardmesh
