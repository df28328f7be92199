// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <vector>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

/// How much a state holds: over all ranks without replicas, and on this rank.
struct StateSize {
  index_t tensors = 0;
  index_t elements = 0;
  index_t bytes = 0;
  index_t local_elements = 0;
  index_t local_bytes = 0;

  [[nodiscard]] friend bool operator==(StateSize const&, StateSize const&) = default;
};

/// Adds up the tensors of a state dict; tied ones count once where this rank sees that they are tied.
/// No communication.
[[nodiscard]] inline StateSize count(StateDict const& dict) {
  StateSize size;
  auto tied = dict.aliases().begin();
  for (StateEntry const& entry : dict) {
    if (tied != dict.aliases().end() && tied->first == entry.key) {
      ++tied;
    } else if (entry.is_tensor()) {
      AnyTensor const& tensor = entry.tensor();
      auto const element = static_cast<index_t>(size_of(tensor.dtype()));
      size.tensors += 1;
      size.elements += volume(tensor.shape());
      size.bytes += volume(tensor.shape()) * element;
      size.local_elements += volume(tensor.local_shape());
      size.local_bytes += volume(tensor.local_shape()) * element;
    }
  }
  return size;
}

/// Adds up the parameters of a model, frozen ones included.
template <detail::ModelType Model>
[[nodiscard]] StateSize count(Model& model) {
  StateDict parameters;
  for_each_leaf(model, [&parameters](std::string const& name, auto& leaf, Role role) {
    if (role == Role::parameter || role == Role::frozen) {
      parameters.insert(name, detail::state_value(leaf));
    }
  });
  return count(parameters);
}

namespace detail {

[[nodiscard]] inline std::string kind_text(AnyTensor const& tensor) {
  switch (tensor.kind()) {
    case TensorKind::distributed:
      return concat(to_string(tensor.layout().placements()), " on ", to_string(tensor.mesh()));
    case TensorKind::sharded:
      return concat("sharded over ", std::to_string(tensor.layout().ranks()), " ranks");
    case TensorKind::plain:
      break;
  }
  return "plain";
}

}  // namespace detail

/// A table with a line for each value: name, dtype, global shape, local shape, memory, placements and
/// mesh; of plain values the value; of tied tensors the name that they share elements with.
[[nodiscard]] inline std::string to_string(StateDict const& dict) {
  constexpr std::size_t columns = 6;
  std::vector<std::string> cells;  // row by row
  auto const add_row = [&cells](std::initializer_list<std::string> row) {
    for (std::string const& cell : row) {
      cells.push_back(cell);
    }
  };
  add_row({"name", "dtype", "shape", "local", "memory", "placements"});
  auto tied = dict.aliases().begin();
  for (StateEntry const& entry : dict) {
    if (!entry.is_tensor()) {
      add_row({entry.key, std::string(entry.plain().kind()), "", "", "", to_string(entry.plain())});
      continue;
    }
    AnyTensor const& tensor = entry.tensor();
    add_row({entry.key, std::string(to_string(tensor.dtype())), to_string(tensor.shape()),
             to_string(tensor.local_shape()), std::string(to_string(tensor.memory())),
             detail::kind_text(tensor)});
    if (tied != dict.aliases().end() && tied->first == entry.key) {
      cells.back() += ", tied to " + tied->second;
      ++tied;
    }
  }
  std::size_t widths[columns] = {};
  for (std::size_t i = 0; i < cells.size(); ++i) {
    widths[i % columns] = detail::larger(widths[i % columns], cells[i].size());
  }
  std::string text;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    bool const is_last = i % columns == columns - 1;
    text +=
        cells[i] + (is_last ? "\n" : std::string(widths[i % columns] + 2 - cells[i].size(), ' '));
  }
  return text;
}

}  // namespace v0
}  // namespace shardmesh
