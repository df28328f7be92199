// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A tensor of a state dict that is to become part of a flat one.
/// @throws KeyError if it is missing; ShapeError if it has another shape or is sharded otherwise.
template <class Parameter>
[[nodiscard]] Parameter flat_member(StateDict const& dict,
                                    std::string const& key,
                                    Shape const& shape) {
  StateEntry const& entry = dict.at(key);
  Parameter const* const tensor =
      entry.is_tensor() ? entry.tensor().template get<Parameter>() : nullptr;
  if (tensor == nullptr || !(tensor->shape() == shape)) {
    throw ShapeError("shardmesh::flat_shard: \"" + key + "\" is " +
                     (entry.is_tensor() ? to_string(entry.tensor().layout()) : "a plain value") +
                     ", wanted is a tensor of shape " + to_string(shape) +
                     " that is sharded as the model; load into the dict that state_dict() gave");
  }
  return *tensor;
}

/// Is it an entry `state.<flat parameter>.<name>`?
[[nodiscard]] inline bool is_state_of(StateEntry const& entry, std::string const& flat_name) {
  return entry.path.size() == 3 && entry.path[0] == PathElement("state") &&
         entry.path[1] == PathElement(flat_name);
}

/// The members' names in the place of their flat parameters'.
template <class Unit>
[[nodiscard]] Value unflatten_names(Value const& list, std::vector<Unit const*> const& units) {
  Value::List names;
  for (Value const& name : list.template as<Value::List>()) {
    for (Unit const* unit : units) {
      if (name == Value(unit->flat_name())) {
        for (auto const& member : unit->members()) {
          names.emplace_back(member.parameter.names.front());
        }
      }
    }
  }
  return names;
}

/// Optimizer state of flat parameters as state of their members, in PyTorch's order: all of one
/// parameter, then the next. What is not sharded, `step`, every member gets.
/// @collective over the shard group.
template <class Unit>
[[nodiscard]] StateDict unflatten_state(StateDict const& flat,
                                        std::vector<Unit const*> const& units) {
  using Parameter = typename Unit::Parameter;
  StateDict dict;
  for (Unit const* unit : units) {
    struct Named {
      std::string name;
      std::vector<AnyTensor> parts;  // by member
    };
    std::vector<Named> states;
    for (StateEntry const& entry : flat) {
      if (!is_state_of(entry, unit->flat_name())) {
        continue;
      }
      Named& state = states.emplace_back(Named{to_string(entry.path[2]), {}});
      if (auto const* tensor = entry.tensor().template get<Parameter>()) {
        for (Parameter const& part : unit->unflatten(*tensor)) {
          state.parts.emplace_back(part);
        }
      } else {
        for (std::size_t i = 0; i < unit->members().size(); ++i) {
          state.parts.push_back(entry.tensor().offloaded());
        }
      }
    }
    for (std::size_t i = 0; i < unit->members().size(); ++i) {
      for (Named const& state : states) {
        dict.insert({"state", unit->members()[i].parameter.names.front(), state.name},
                    state.parts[i]);
      }
    }
  }
  for (StateEntry const& entry : flat) {
    if (!entry.is_tensor()) {
      bool const names = entry.path.back() == PathElement("params");
      dict.insert(entry.path, names ? unflatten_names(entry.plain(), units) : entry.plain());
    }
  }
  return dict;
}

/// The reverse, into the tensors of `flat`.
/// @throws KeyError, ShapeError as `flat_member`; nothing is changed then.
/// @collective over the shard group.
template <class Unit>
void flatten_state(StateDict const& dict,
                   StateDict const& flat,
                   std::vector<Unit const*> const& units) {
  using Parameter = typename Unit::Parameter;
  struct Move {
    Unit const* unit;
    AnyTensor const* target;
    std::vector<Parameter> parts;
    AnyTensor const* scalar;
  };
  std::vector<Move> moves;
  for (Unit const* unit : units) {
    for (StateEntry const& entry : flat) {
      if (!is_state_of(entry, unit->flat_name())) {
        continue;
      }
      Move& move = moves.emplace_back(Move{unit, &entry.tensor(), {}, nullptr});
      for (auto const& member : unit->members()) {
        std::string const key =
            "state." + member.parameter.names.front() + "." + to_string(entry.path[2]);
        if (entry.tensor().template get<Parameter>() != nullptr) {
          move.parts.push_back(flat_member<Parameter>(dict, key, member.shape));
        } else {
          move.scalar = &dict.at(key).tensor();
        }
      }
    }
  }
  for (Move const& move : moves) {
    if (move.scalar != nullptr) {
      move.target->assign(move.scalar->local_bytes());
    } else {
      move.unit->flatten(move.parts, *move.target->template get<Parameter>());
    }
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
