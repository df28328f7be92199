// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of state/state_dict.hpp.

#include <cstddef>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/hash_index.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

SHARDMESH_INLINE StateDict::StateDict(
    std::initializer_list<std::pair<std::string, StateDict>> parts) {
  for (auto const& [name, part] : parts) {
    for (StateEntry const& entry : part) {
      std::vector<PathElement> path{name};
      for (PathElement const& element : entry.path) {
        path.push_back(element);
      }
      insert(std::move(path), entry.value);
    }
  }
}

SHARDMESH_INLINE void StateDict::insert(std::vector<PathElement> path, StateValue value) {
  std::string key = flat_key(path);
  if (contains(key)) {
    throw KeyError("shardmesh::StateDict: two values have the key \"" + key +
                   "\"; names must differ after joining with dots");
  }
  std::size_t const hash = detail::HashIndex::hash_of(key);
  index_.make_room();
  first_at_.make_room();
  entries_.push_back({std::move(key), std::move(path), std::move(value)});
  index_.add(hash, entries_.size() - 1);
  note_alias(entries_.back());
}

SHARDMESH_INLINE StateEntry const& StateDict::at(std::string const& key) const {
  std::size_t const found = position_of(key);
  if (found == detail::HashIndex::none) {
    throw KeyError("shardmesh::StateDict: no value has the key \"" + key + "\" (" +
                   std::to_string(size()) + " keys" +
                   (empty() ? "" : ", the first is \"" + entries_.front().key + "\"") + ")");
  }
  return entries_[found];
}

SHARDMESH_INLINE void StateDict::set(std::string const& key, Value value) {
  if (at(key).is_tensor()) {
    throw KeyError("shardmesh::StateDict::set: \"" + key +
                   "\" holds a tensor; assign to the tensor instead");
  }
  StateValue& held = entries_[position_of(key)].value;
  if (held.is_live()) {
    held.link().owner->write(held.link().group, held.link().name, std::move(value));
  } else {
    held = std::move(value);
  }
}

SHARDMESH_INLINE void StateDict::note_alias(StateEntry const& last) {
  if (!last.is_tensor() || last.tensor().bytes() == 0) {
    return;
  }
  AnyTensor const& tensor = last.tensor();
  std::size_t const hash = detail::HashIndex::hash_of_address(tensor.data());
  std::size_t const at = first_at_.find(hash, [&](std::size_t position) {
    return entries_[position].tensor().data() == tensor.data();
  });
  if (at == detail::HashIndex::none) {
    first_at_.add(hash, entries_.size() - 1);
    return;
  }
  AnyTensor const& first = entries_[at].tensor();
  if (first.dtype() == tensor.dtype() && first.layout() == tensor.layout()) {
    aliases_.emplace_back(last.key, entries_[at].key);
  }
}

SHARDMESH_INLINE std::size_t StateDict::position_of(std::string const& key) const {
  return index_.find(detail::HashIndex::hash_of(key),
                     [&](std::size_t position) { return entries_[position].key == key; });
}

template <class Dict>
Dict offloaded(StateDict const& dict) {
  if (auto const current = detail::up_to_date(dict)) {
    return offloaded<Dict>(*current);
  }
  HostBuckets buckets;
  Dict result;
  result.reserve(dict.size());
  auto alias = dict.aliases().begin();
  for (StateEntry const& entry : dict) {
    if (alias != dict.aliases().end() && alias->first == entry.key) {
      result.insert(entry.path, result.at(alias->second).value);
      ++alias;
    } else {
      result.insert(entry.path, entry.is_tensor() ? StateValue(entry.tensor().offloaded(&buckets))
                                                  : entry.value.detached());
    }
  }
  return result;
}

SHARDMESH_INLINE std::string difference(StateDict const& a, StateDict const& b) {
  if (a.size() != b.size()) {
    return std::to_string(a.size()) + " keys against " + std::to_string(b.size());
  }
  auto other = b.begin();
  for (StateEntry const& entry : a) {
    if (entry.key != other->key || entry.path != other->path) {
      return "key \"" + entry.key + "\" against \"" + other->key + "\"";
    }
    if (entry.is_tensor() != other->is_tensor()) {
      return "\"" + entry.key + "\": a tensor against a plain value";
    }
    std::string const what = entry.is_tensor()
                                 ? difference(entry.tensor(), other->tensor())
                                 : (entry.plain() == other->plain() ? "" : "plain values differ");
    if (!what.empty()) {
      return "\"" + entry.key + "\": " + what;
    }
    ++other;
  }
  return {};
}

}  // namespace v0
}  // namespace shardmesh
