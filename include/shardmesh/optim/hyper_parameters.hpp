// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Collects hyper-parameters as plain values. A zero is written as the integer, as PyTorch's defaults
/// are.
struct HyperParameterWriter {
  Value::Dict entries;

  void operator()(char const* name, double value) { add(name, number(value)); }
  void operator()(char const* name, bool value) { add(name, value); }
  void operator()(char const* name, std::array<double, 2> const& pair) {
    add(name, Value::Tuple{{pair[0], pair[1]}});
  }
  void operator()(char const* name, Value const& constant) { add(name, constant); }
  template <bool value>
  void operator()(char const* name, std::bool_constant<value>) {
    add(name, value);
  }

 private:
  void add(char const* name, Value value) { entries.emplace_back(name, std::move(value)); }
  [[nodiscard]] static Value number(double value) { return value == 0 ? Value(0) : Value(value); }
};

/// Reads hyper-parameters from a state dict, where each stands under `prefix` and its name.
class HyperParameterReader {
 public:
  HyperParameterReader(StateDict const& dict, std::string prefix)
      : dict_(&dict), prefix_(std::move(prefix)) {}

  void operator()(char const* name, double& value) const { value = number(name, plain(name)); }
  void operator()(char const* name, bool& value) const {
    if (dict_->contains(prefix_ + name)) {  // PyTorch's older versions have fewer switches
      value = plain(name).as<bool>();
    }
  }
  void operator()(char const* name, std::array<double, 2>& pair) const {
    auto const& items = plain(name).as<Value::Tuple>().items;
    if (items.size() != 2) {
      throw InvalidArgument("shardmesh::Optimizer: \"" + prefix_ + name + "\" holds " +
                            std::to_string(items.size()) + " numbers instead of 2");
    }
    pair = {number(name, items[0]), number(name, items[1])};
  }
  /// How PyTorch is to compute: it says nothing about the result.
  void operator()(char const*, Value const&) const {}
  /// What this optimizer is; another one's state means something else.
  template <bool value>
  void operator()(char const* name, std::bool_constant<value>) const {
    bool is = value;
    (*this)(name, is);
    if (is != value) {
      throw InvalidArgument("shardmesh::Optimizer: \"" + prefix_ + name + "\" is " +
                            to_string(Value(is)) + ", this optimizer's " + to_string(Value(value)) +
                            "; load the state into the one it is of");
    }
  }

 private:
  [[nodiscard]] Value const& plain(char const* name) const {
    StateEntry const& entry = dict_->at(prefix_ + name);
    if (entry.is_tensor()) {
      throw InvalidArgument("shardmesh::Optimizer: \"" + entry.key +
                            "\" is a tensor; save it as a plain number");
    }
    return entry.plain();
  }

  [[nodiscard]] double number(char const* name, Value const& value) const {
    if (auto const* integer = value.get<std::int64_t>()) {
      return static_cast<double>(*integer);
    }
    if (auto const* real = value.get<double>()) {
      return *real;
    }
    throw InvalidArgument("shardmesh::Optimizer: \"" + prefix_ + name + "\" is of the kind " +
                          std::string(value.kind()) + ", not a number");
  }

  StateDict const* dict_;
  std::string prefix_;
};

}  // namespace detail

/// Hyper-parameters under PyTorch's names, in PyTorch's order.
template <class Options>
[[nodiscard]] Value::Dict hyper_parameters(Options options) {
  detail::HyperParameterWriter writer;
  options.visit(writer);
  return std::move(writer.entries);
}

}  // namespace v0
}  // namespace shardmesh
