// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/value_tree.hpp>
#include <shardmesh/state/live_sections.hpp>
#include <shardmesh/state/live_values.hpp>
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

/// The names of the members in the place of their flat parameter's.
template <class Unit>
[[nodiscard]] std::vector<std::pair<std::string, std::vector<std::string>>> member_names(
    std::vector<Unit const*> const& units) {
  std::vector<std::pair<std::string, std::vector<std::string>>> names;
  for (Unit const* unit : units) {
    names.emplace_back(unit->flat_name(), std::vector<std::string>{});
    for (auto const& member : unit->members()) {
      names.back().second.push_back(member.parameter.names.front());
    }
  }
  return names;
}

/// The hyper-parameters of an optimizer of flat parameters, of the same optimizer, with the names of
/// the members.
template <class Unit>
void insert_options(StateDict const& flat, std::vector<Unit const*> const& units, StateDict& dict) {
  std::shared_ptr<LiveValues> from;
  std::shared_ptr<LiveValues> to;
  for (StateEntry const& entry : flat) {
    LiveLink link = entry.value.link();
    if (entry.is_tensor()) {
      continue;
    }
    if (link.owner == nullptr) {
      dict.insert(entry.path, entry.value);
      continue;
    }
    if (link.owner != from) {
      from = link.owner;
      to = from->renamed(member_names(units));
    }
    link.owner = to;
    dict.insert(entry.path, std::move(link));
  }
}

/// Optimizer state of flat parameters as state of their members, in PyTorch's order: all of one
/// parameter, then the next. What is not sharded, `step`, every member gets. Hyper-parameters stay
/// those of the optimizer itself.
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
  insert_options(flat, units, dict);
  return dict;
}

/// Lets the optimizer whose state `flat` is check the hyper-parameters that `dict` has of its members.
template <class Unit>
[[nodiscard]] std::vector<std::unique_ptr<LivePlan>> option_plans(
    StateDict const& dict, StateDict const& flat, std::vector<Unit const*> const& units) {
  if (auto const current = up_to_date(dict)) {
    return option_plans(*current, flat, units);
  }
  std::vector<std::unique_ptr<LivePlan>> plans;
  for (LiveSection const& section : live_sections(flat)) {
    std::shared_ptr<LiveValues> const owner = section.owner->renamed(member_names(units));
    LiveLoad load;
    load.prefix = section.prefix;
    load.wanted = section.wanted;
    for (auto const& [key, link] : section.tensors) {
      load.tensors.emplace_back(link.group, link.name);
    }
    ValueTree found;
    for (StateEntry const& entry : dict) {
      if (!entry.is_tensor() && !entry.path.empty() &&
          entry.path.front() == PathElement(owner->root())) {
        found.add(entry.path, entry.plain());
      }
    }
    Value const whole = std::move(found).finish();
    if (auto const* const options = whole.get<Value::Dict>()) {
      load.found = *options;
    }
    plans.push_back(owner->prepare(load));
  }
  return plans;
}

/// The reverse, into the tensors of `flat`, with the hyper-parameters that `dict` has.
/// @throws KeyError, ShapeError as `flat_member`; InvalidArgument for a hyper-parameter that makes no
///         sense. Nothing is changed then.
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
  std::vector<std::unique_ptr<LivePlan>> const plans = option_plans(dict, flat, units);
  for (Move const& move : moves) {
    if (move.scalar != nullptr) {
      move.target->assign(move.scalar->local_bytes());
    } else {
      move.unit->flatten(move.parts, *move.target->template get<Parameter>());
    }
  }
  for (auto const& plan : plans) {
    plan->apply();
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
