// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/detail/stage.hpp>
#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Two names of one tensor.
using Tie = std::pair<std::string, std::string>;

/// The ties that any rank sees: one without elements of a tensor does not see that it is tied.
/// @collective over `comm`.
template <Communicator Comm>
[[nodiscard]] std::vector<Tie> gather_ties(Comm const& comm, StateDict const& dict) {
  Packer mine;
  for (auto const& [name, first] : dict.aliases()) {
    mine.text(name);
    mine.text(first);
  }
  std::vector<Tie> ties;
  for (std::string const& text : all_gather_text(comm, std::move(mine).finish(), "load")) {
    for (Unpacker in(text); !in.at_end();) {
      std::string name = in.text();
      ties.emplace_back(std::move(name), in.text());
    }
  }
  return ties;
}

/// The tensors of a state dict that are one, under several names: their positions in the dict.
[[nodiscard]] inline std::vector<std::vector<std::size_t>> tied_positions(StateDict const& dict) {
  std::vector<std::vector<std::size_t>> groups;
  if (dict.aliases().empty()) {
    return groups;
  }
  KeyMap<std::size_t> positions;
  for (StateEntry const& entry : dict) {
    positions.add(entry.key, positions.size());
  }
  KeyMap<std::size_t> by_first;
  for (auto const& [name, first] : dict.aliases()) {
    std::size_t const at = by_first.add(first, groups.size());
    if (at == groups.size()) {
      groups.push_back({positions.at(first)});
    }
    groups[at].push_back(positions.at(name));
  }
  return groups;
}

/// Takes tensors off the list of what is missing that another name of theirs is there for.
/// @param missed   by position, in and out.
/// @param ties     of all ranks.
/// @param is_there is a key stored?
template <class IsThere>
void forgive_tied(StateDict const& dict,
                  std::vector<Tie> const& ties,
                  IsThere const& is_there,
                  std::vector<bool>& missed) {
  for (auto const& group : tied_positions(dict)) {
    bool any = false;
    for (std::size_t const position : group) {
      any = any || !missed[position];
    }
    for (std::size_t i = 0; any && i < group.size(); ++i) {
      missed[group[i]] = false;
    }
  }
  KeyMap<std::size_t> group_of;
  std::vector<bool> found;  // by group
  for (auto const& [name, first] : ties) {
    std::size_t const group = group_of.add(first, found.size());
    if (group == found.size()) {
      found.push_back(is_there(first));
    }
    group_of.add(name, group);
    found[group] = found[group] || is_there(name);
  }
  std::size_t position = 0;
  for (StateEntry const& entry : dict) {
    bool const may_be_blind = entry.is_tensor() && entry.tensor().bytes() == 0;
    if (missed[position] && may_be_blind) {
      std::size_t const* const group = group_of.find(entry.key);
      missed[position] = group == nullptr || !found[*group];
    }
    ++position;
  }
}

/// @param where  the checkpoint, for messages.
/// @throws InvalidArgument if two names of one tensor come with different elements.
inline void check_tied(StateDict const& dict,
                       std::vector<Staged> const& staged,
                       std::string const& where) {
  for (auto const& group : tied_positions(dict)) {
    std::size_t first = group.size();
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (!staged[group[i]].tensor) {
        continue;
      }
      first = first == group.size() ? i : first;
      if (!format::same_bytes(staged[group[i]].tensor->local(),
                              staged[group[first]].tensor->local())) {
        auto const key = [&](std::size_t at) {
          return (dict.begin() + static_cast<std::ptrdiff_t>(group[at]))->key;
        };
        throw InvalidArgument("shardmesh::load: " + where + ": \"" + key(first) + "\" and \"" +
                              key(i) +
                              "\" have different values, but are two names of one tensor in the "
                              "state dict; untie them, or leave one of the names out");
      }
    }
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
