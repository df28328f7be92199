// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {

/// What one load found for a `LiveValues`, and what that says about it.
struct LiveLoad {
  std::string prefix;  ///< of the keys, such as "optim."
  Value::Dict found;   ///< what stands under `root()` and below, nested as it was saved

  /// Is this value among those to be loaded?
  [[nodiscard]] bool wants(std::size_t group, std::string const& name) const {
    return wanted.contains(std::to_string(group) + "." + name);
  }
  detail::KeyList wanted;  ///< "<group>.<name>" of each
  /// Tensors of the object that the load replaces: (group, name).
  std::vector<std::pair<std::size_t, std::string>> tensors;

  /// @{ Set by `LiveValues::prepare`: keys that were looked for and not found, with the reason if it
  /// is not just that; and what keys start with, up to a dot, with whether anybody asked for those.
  struct Missing {
    std::string key;
    std::string why;
  };
  std::vector<Missing> missing;
  detail::KeyMap<char> asked;
  /// @}

  /// After `prepare`: did anybody ask for what is stored under a key?
  [[nodiscard]] bool asks_for(std::string const& key) const {
    for (std::size_t dot = key.rfind('.'); dot != key.npos && dot > 0;
         dot = key.rfind('.', dot - 1)) {
      if (char const* const one = asked.find(key.substr(0, dot + 1))) {
        return *one != 0;
      }
    }
    return true;
  }
};

/// Where a value stands, below the place of its object in the dict.
struct LivePlace {
  std::vector<PathElement> path;
  std::size_t group = 0;
  std::string name;
  bool is_carried = false;  ///< of a loaded state, unknown to the object
};

/// What a load is going to change in an object, all checked.
class LivePlan {
 public:
  LivePlan() = default;
  LivePlan(LivePlan const&) = delete;
  LivePlan& operator=(LivePlan const&) = delete;
  virtual ~LivePlan() = default;
  virtual void apply() noexcept = 0;
  /// All values that there will be then, in order, as of `LiveValues::places`.
  [[nodiscard]] virtual std::vector<LivePlace> places() const = 0;
};

/// Plain values of a state dict that are another object's own, as tensors are: the hyper-parameters of
/// an optimizer. Whoever reads them gets what the object has now, a load that has succeeded gives the
/// object what it found. The state dict keeps alive what is behind it.
class LiveValues {
 public:
  using Place = LivePlace;

  LiveValues() = default;
  LiveValues(LiveValues const&) = delete;
  LiveValues& operator=(LiveValues const&) = delete;
  virtual ~LiveValues() = default;

  /// The first step of all paths, or what it starts with, up to a dot: "param_groups".
  [[nodiscard]] virtual std::string root() const = 0;
  /// All values that there are now, in order.
  [[nodiscard]] virtual std::vector<Place> places() const = 0;
  /// None if there is no such value (any more).
  [[nodiscard]] virtual Value read(std::size_t group, std::string const& name) const = 0;
  /// @throws InvalidArgument if the value makes no sense there.
  virtual void write(std::size_t group, std::string const& name, Value value) = 0;
  /// Checks what a load found. Nothing changes before the plan is applied.
  /// @throws InvalidArgument, naming the key, if a value makes no sense.
  [[nodiscard]] virtual std::unique_ptr<LivePlan> prepare(LiveLoad& load) = 0;
  /// The same values, of parameters with other names: (name, new names in its place).
  [[nodiscard]] virtual std::shared_ptr<LiveValues> renamed(
      std::vector<std::pair<std::string, std::vector<std::string>>> const& names) const = 0;
};

/// That a value of a state dict is a tensor or a plain value of an object.
struct LiveLink {
  std::shared_ptr<LiveValues> owner;  ///< nullptr: a value of the dict's own
  std::size_t group = 0;
  std::string name;
  std::size_t depth = 0;    ///< so many steps at the end of its path are the object's
  bool is_carried = false;  ///< as of `LiveValues::Place`
};

}  // namespace v0
}  // namespace shardmesh
