// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/value.hpp>

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

/// Finds one hyper-parameter as a plain value.
struct HyperParameterPicker {
  std::string const& wanted;
  std::optional<Value> found;

  template <class T>
  void operator()(char const* name, T const& value) {
    if (!found && wanted == name) {
      HyperParameterWriter writer;
      writer(name, value);
      found = std::move(writer.entries.front().second);
    }
  }
};

/// Reads hyper-parameters from the options of a group as they were saved. What they have besides is
/// kept for the next save.
class HyperParameterReader {
 public:
  /// @param prefix    of the keys, for messages.
  /// @param unwanted  hyper-parameters that are to stay as they are.
  HyperParameterReader(Value::Dict const& from, std::string prefix, KeyList const& unwanted)
      : from_(&from), prefix_(std::move(prefix)), unwanted_(&unwanted) {
    known_.add("params");
  }

  void operator()(char const* name, double& value) {
    if (Value const* const found = find(name, true)) {
      value = number(name, *found);
    }
  }
  /// PyTorch's older versions have fewer switches.
  void operator()(char const* name, bool& value) {
    if (Value const* const found = find(name, false)) {
      value = flag(name, *found);
    }
  }
  void operator()(char const* name, std::array<double, 2>& pair) {
    if (Value const* const found = find(name, true)) {
      auto const* items = found->get<Value::List>();
      if (auto const* const tuple = found->get<Value::Tuple>()) {
        items = &tuple->items;
      }
      if (items == nullptr) {
        refuse(name, "is of the kind " + std::string(found->kind()) + ", not two numbers");
      }
      if (items->size() != 2) {
        refuse(name, "holds " + std::to_string(items->size()) + " numbers instead of 2");
      }
      pair = {number(name, (*items)[0]), number(name, (*items)[1])};
    }
  }
  /// How PyTorch is to compute: it says nothing about the result. Kept if it is not the usual value.
  void operator()(char const* name, Value const& usual) {
    Value const* const found = find(name, false);
    if (found != nullptr && !(*found == usual)) {
      carried_.emplace_back(name, *found);
    }
  }
  /// What this optimizer is; another one's state means something else.
  template <bool value>
  void operator()(char const* name, std::bool_constant<value>) {
    bool is = value;
    (*this)(name, is);
    if (is != value) {
      refuse(name, "is " + to_string(Value(is)) + ", this optimizer's " + to_string(Value(value)) +
                       "; load the state into the one it is of");
    }
  }

  /// Hyper-parameters that must be there, and are not.
  [[nodiscard]] std::vector<std::string> const& missing() const noexcept { return missing_; }

  /// After all hyper-parameters: what there is besides, in order.
  [[nodiscard]] Value::Dict carried() && {
    for (auto const& [name, value] : *from_) {
      if (!known_.contains(name)) {
        carried_.emplace_back(name, value);
      }
    }
    return std::move(carried_);
  }

 private:
  /// nullptr if it is not there, or not wanted.
  [[nodiscard]] Value const* find(std::string const& name, bool must_be_there) {
    known_.add(name);
    if (unwanted_->contains(name)) {
      return nullptr;
    }
    for (auto const& [other, value] : *from_) {
      if (other == name) {
        return &value;
      }
    }
    if (must_be_there) {
      missing_.push_back(name);
    }
    return nullptr;
  }

  [[noreturn]] void refuse(std::string const& name, std::string const& what) const {
    throw InvalidArgument("shardmesh::Optimizer: \"" + prefix_ + name + "\" " + what);
  }

  [[nodiscard]] double number(char const* name, Value const& value) const {
    if (auto const* integer = value.get<std::int64_t>()) {
      auto const real = static_cast<double>(*integer);
      if (std::abs(real) > 0x1p53) {
        refuse(name, "is " + to_string(value) + ", which a floating-point number has only rounded");
      }
      return real;
    }
    if (auto const* real = value.get<double>()) {
      return *real;
    }
    refuse(name, "is of the kind " + std::string(value.kind()) + ", not a number");
  }

  /// Python's True is 1.
  [[nodiscard]] bool flag(char const* name, Value const& value) const {
    if (auto const* held = value.get<bool>()) {
      return *held;
    }
    auto const* integer = value.get<std::int64_t>();
    if (integer == nullptr || *integer < 0 || *integer > 1) {
      refuse(name, "is " + to_string(value) + ", of the kind " + std::string(value.kind()) +
                       ", not a bool");
    }
    return *integer == 1;
  }

  Value::Dict const* from_;
  std::string prefix_;
  KeyList known_;
  KeyList const* unwanted_;
  std::vector<std::string> missing_;
  Value::Dict carried_;
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
