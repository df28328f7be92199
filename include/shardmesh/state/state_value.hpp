// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/value.hpp>
#include <shardmesh/state/any_tensor.hpp>
#include <shardmesh/state/live_values.hpp>

namespace shardmesh {
inline namespace v0 {

/// A leaf of a state dict: a tensor or a plain value. A tensor is a handle; so is a plain value of an
/// optimizer: it is what the optimizer has when it is read.
class StateValue {
 public:
  template <std::convertible_to<AnyTensor> T>
  StateValue(T const& tensor) : tensor_(tensor) {}
  template <std::convertible_to<Value> T>
  StateValue(T plain) : plain_(std::move(plain)) {}
  /// A plain value of `link.owner`.
  StateValue(LiveLink link) : link_(std::move(link)) {}
  /// A tensor of `link.owner`, which is told when it has been loaded.
  StateValue(AnyTensor tensor, LiveLink link)
      : tensor_(std::move(tensor)), link_(std::move(link)) {}

  [[nodiscard]] bool is_tensor() const noexcept { return tensor_.has_value(); }
  /// @pre is_tensor().
  [[nodiscard]] AnyTensor const& tensor() const noexcept { return *tensor_; }
  /// A copy, as it is now.
  /// @pre !is_tensor().
  [[nodiscard]] Value plain() const {
    return link_.owner != nullptr ? link_.owner->read(link_.group, link_.name) : plain_;
  }

  /// Whose value it is: `owner` is nullptr for those of the dict's own.
  [[nodiscard]] LiveLink const& link() const noexcept { return link_; }
  [[nodiscard]] bool is_live() const noexcept { return link_.owner != nullptr; }
  /// The same tensor, or the plain value as it is now, without the link to its owner.
  [[nodiscard]] StateValue detached() const {
    return is_tensor() ? StateValue(*tensor_) : StateValue(plain());
  }
  /// The same with its tensor on another stream, see `AnyTensor::ordered_on`.
  /// @pre is_tensor().
  [[nodiscard]] StateValue ordered_on(AnyStream const& stream) const {
    return {tensor_->ordered_on(stream), link_};
  }

 private:
  std::optional<AnyTensor> tensor_;
  Value plain_;
  LiveLink link_;
};

/// A value of a state dict with its path. `key` is the path joined with dots, PyTorch's flat key.
struct StateEntry {
  std::string key;
  std::vector<PathElement> path;
  StateValue value;

  [[nodiscard]] bool is_tensor() const noexcept { return value.is_tensor(); }
  /// @pre is_tensor().
  [[nodiscard]] AnyTensor const& tensor() const noexcept { return value.tensor(); }
  /// A copy, as it is now.
  /// @pre !is_tensor().
  [[nodiscard]] Value plain() const { return value.plain(); }
  /// Is it a plain value of an optimizer?
  [[nodiscard]] bool is_live() const noexcept { return !is_tensor() && value.is_live(); }
};

}  // namespace v0
}  // namespace shardmesh
