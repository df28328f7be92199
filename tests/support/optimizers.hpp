// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What PyTorch's optimizers did in 20 steps (tests/data/optim.json), and the same steps here, for parameters
// of any kind in any memory space.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <shardmesh/optim/adam.hpp>
#include <shardmesh/optim/sgd.hpp>
#include <shardmesh/tensor/local_part.hpp>

namespace test {

namespace sm = shardmesh;

[[nodiscard]] inline nlohmann::json optimizer_data() {
  std::ifstream file(SHARDMESH_TEST_DATA "/optim.json");
  return nlohmann::json::parse(file);
}

[[nodiscard]] inline sm::Tensor<float> tensor_of(nlohmann::json const& values,
                                                 nlohmann::json const& shape) {
  auto const extents = shape.get<std::vector<sm::index_t>>();
  return sm::Tensor<float>::from(sm::Shape(extents.begin(), extents.end()),
                                 values.get<std::vector<float>>());
}

/// Sets the hyper-parameters that a JSON object names.
struct OptionsFromJson {
  nlohmann::json const& given;

  template <class T>
  void operator()(char const* name, T& value) const {
    if constexpr (std::is_same_v<T, double> || std::is_same_v<T, bool> ||
                  std::is_same_v<T, std::array<double, 2>>) {
      value = given.value(name, value);
    }
  }
  void operator()(char const*, sm::Value const&) const {}
  template <bool value>
  void operator()(char const*, std::bool_constant<value>) const {}
};

/// Calls `f(Options{})` with the options of PyTorch's optimizer of that name.
template <class F>
decltype(auto) with_options_of(std::string const& optimizer, F&& f) {
  if (optimizer == "SGD") {
    return f(sm::SgdOptions{});
  }
  return optimizer == "Adam" ? f(sm::AdamOptions{}) : f(sm::AdamWOptions{});
}

/// The optimizer of a case after its 20 steps. `place` makes a parameter of a whole host tensor.
template <class Options, class Place>
[[nodiscard]] auto trained(nlohmann::json const& data,
                           nlohmann::json const& one,
                           Place const& place) {
  using Parameter = decltype(place(std::declval<sm::Tensor<float>>()));
  auto const parameter = [&](nlohmann::json const& values, std::string const& name) {
    return place(tensor_of(values.at(name), data.at("shapes").at(name)));
  };
  std::vector<sm::ParameterGroup<Parameter, Options>> groups;
  for (auto const& group : one.at("groups")) {
    groups.emplace_back();
    groups.back().options.visit(OptionsFromJson{group.at("options")});
    for (std::string const name : group.at("parameters")) {
      groups.back().parameters.push_back({name, parameter(data.at("start"), name)});
    }
  }
  sm::Optimizer<Parameter, Options> optimizer(groups);
  for (auto const& step : data.at("gradients")) {
    std::vector<Parameter> gradients;
    for (auto const& each : optimizer.parameters()) {
      gradients.push_back(parameter(step, each.name));
    }
    optimizer.step(gradients);
  }
  return optimizer;
}

/// How far the local parts are from PyTorch's.
struct Deviation {
  double worst = 0;   ///< largest difference, relative to the value, or to 1e-3 for smaller ones
  int differing = 0;  ///< elements that differ in any bit
  int elements = 0;   ///< elements compared
};

template <class Parameter>
void compare(Parameter const& got, Parameter const& wanted, Deviation& deviation) {
  auto const left = sm::to_host(sm::local_part(got));
  auto const right = sm::to_host(sm::local_part(wanted));
  for (std::size_t i = 0; i < right.span().size(); ++i) {
    auto const value = static_cast<double>(right.span()[i]);
    double const difference = std::abs(static_cast<double>(left.span()[i]) - value);
    deviation.worst = std::max(deviation.worst, difference / std::max(1e-3, std::abs(value)));
    deviation.differing += left.span()[i] == right.span()[i] ? 0 : 1;
    ++deviation.elements;
  }
}

/// Trains, and compares parameters and state with PyTorch's.
template <class Options, class Place>
[[nodiscard]] Deviation deviation_from_torch(nlohmann::json const& data,
                                             nlohmann::json const& one,
                                             Place const& place) {
  using Parameter = decltype(place(std::declval<sm::Tensor<float>>()));
  auto const optimizer = trained<Options>(data, one, place);
  auto const state = optimizer.state_dict();
  Deviation deviation;
  for (auto const& parameter : optimizer.parameters()) {
    auto const& shape = data.at("shapes").at(parameter.name);
    compare(parameter.value, place(tensor_of(one.at("final").at(parameter.name), shape)),
            deviation);
    for (auto const& [key, values] : one.at("state").at(parameter.name).items()) {
      auto const& tensor = state.at("state." + parameter.name + "." + key).tensor();
      if (key == "step") {
        compare(*tensor.template get<sm::Tensor<float>>(),
                tensor_of(values, nlohmann::json::array()), deviation);
      } else {
        compare(*tensor.template get<Parameter>(), place(tensor_of(values, shape)), deviation);
      }
    }
  }
  return deviation;
}

}  // namespace test
