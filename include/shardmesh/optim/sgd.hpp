// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/optim/optimizer.hpp>
#include <shardmesh/optim/parameter_groups.hpp>
#include <shardmesh/optim/sgd_update.hpp>
#include <shardmesh/state/parameter_type.hpp>
#include <shardmesh/state/visit.hpp>

namespace shardmesh {
inline namespace v0 {

/// Hyper-parameters of `Sgd`, with PyTorch's names, defaults and meanings.
struct SgdOptions {
  double lr = 1e-3;         ///< learning rate, >= 0
  double momentum = 0;      ///< how much of the last step is kept
  double dampening = 0;     ///< of the gradient on its way into the momentum
  double weight_decay = 0;  ///< added to the gradient
  bool nesterov = false;    ///< look ahead by the momentum
  bool maximize = false;    ///< go up instead of down

  static constexpr char const* name = "Sgd";
  static constexpr bool counts_steps = false;

  template <class Visitor>
  void visit(Visitor&& v) {
    v("lr", lr);
    v("momentum", momentum);
    v("dampening", dampening);
    v("weight_decay", weight_decay);
    v("nesterov", nesterov);
    v("maximize", maximize);
    v("foreach", Value());
    v("differentiable", Value(false));
    v("fused", Value());
  }

  void check() const {
    detail::expect_option(lr >= 0, name, "lr", lr, "0 or more");
    detail::expect_option(momentum >= 0, name, "momentum", momentum, "0 or more");
    detail::expect_option(weight_decay >= 0, name, "weight_decay", weight_decay, "0 or more");
    if (nesterov && (momentum == 0 || dampening != 0)) {
      throw InvalidArgument("shardmesh::Sgd: nesterov needs a momentum and no dampening");
    }
  }

  [[nodiscard]] std::vector<std::string> state_names() const {
    return momentum == 0 ? std::vector<std::string>{} : std::vector<std::string>{"momentum_buffer"};
  }

  [[nodiscard]] SgdUpdate update(UpdateOperands const& x) const {
    return {.weight = x.weight,
            .gradient = x.gradient,
            .momentum_buffer = x.state.empty() ? nullptr : x.state[0],
            .rate = static_cast<float>(lr),
            .momentum = static_cast<float>(momentum),
            .keep = static_cast<float>(1 - dampening),
            .decay = static_cast<float>(weight_decay),
            .first = x.step == 1 && dampening != 0,
            .nesterov = nesterov,
            .maximize = maximize};
  }
};

/// Stochastic gradient descent with momentum: `torch.optim.SGD`. State: `momentum_buffer`, which
/// the first step fills with its gradient; none without momentum.
template <class Parameter>
class Sgd : public Optimizer<Parameter, SgdOptions> {
 public:
  using Optimizer<Parameter, SgdOptions>::Optimizer;
};
template <detail::ModelType Model>
explicit Sgd(Model&, SgdOptions = {})
    -> Sgd<typename detail::OptimizedParameter<std::remove_const_t<Model>>::type>;
template <class Parameter>
explicit Sgd(std::vector<NamedParameter<Parameter>>, SgdOptions = {}) -> Sgd<Parameter>;
template <class Parameter>
explicit Sgd(std::vector<ParameterGroup<Parameter, SgdOptions>>) -> Sgd<Parameter>;

}  // namespace v0
}  // namespace shardmesh
