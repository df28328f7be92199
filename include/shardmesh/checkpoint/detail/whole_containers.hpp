// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/core/value_tree.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The first `steps` of a path, as no two different ones are written.
[[nodiscard]] inline std::string start_of(std::vector<PathElement> const& path, std::size_t steps) {
  std::string text;
  for (std::size_t i = 0; i < steps; ++i) {
    std::string const step = to_string(path[i]);
    text += concat(path[i].is_key() ? "k" : "i", std::to_string(step.size()), ":", step);
  }
  return text;
}

/// The state with each dict or list that has no tensor in it put together to one value, at the place of its first
/// element; handles of tensors are shared.
/// @pre what `dict` says is up to date.
/// @throws KeyError if such a container has the key of another value.
[[nodiscard]] inline StateDict with_whole_containers(StateDict const& dict) {
  KeyList with_tensors;  // the starts of paths that lead to them
  for (StateEntry const& entry : dict) {
    for (std::size_t steps = 1; entry.is_tensor() && steps < entry.path.size(); ++steps) {
      with_tensors.add(start_of(entry.path, steps));
    }
  }
  struct Container {
    std::vector<PathElement> path;
    ValueTree tree;
  };
  std::vector<Container> containers;
  KeyMap<std::size_t> index;
  /// An entry that stays as it is, or the number of a container.
  std::vector<std::pair<StateEntry const*, std::size_t>> order;
  for (StateEntry const& entry : dict) {
    std::size_t steps = 1;
    while (steps < entry.path.size() && with_tensors.contains(start_of(entry.path, steps))) {
      ++steps;
    }
    if (entry.is_tensor() || steps >= entry.path.size()) {
      order.emplace_back(&entry, 0);
      continue;
    }
    std::string const start = start_of(entry.path, steps);
    auto const middle = entry.path.begin() + static_cast<std::ptrdiff_t>(steps);
    std::size_t const* known = index.find(start);
    if (known == nullptr) {
      index.add(start, containers.size());
      known = index.find(start);
      order.emplace_back(nullptr, *known);
      containers.push_back({{entry.path.begin(), middle}, {}});
    }
    containers[*known].tree.add(std::vector<PathElement>(middle, entry.path.end()), entry.plain());
  }
  StateDict whole;
  for (auto const& [entry, number] : order) {
    if (entry != nullptr) {
      whole.insert(entry->path, entry->value);
      continue;
    }
    Container& one = containers[number];
    whole.insert(one.path, std::move(one.tree).finish());
  }
  return whole;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
