// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/key_map.hpp>
#include <shardmesh/state/live_values.hpp>
#include <shardmesh/state/state_value.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The values and tensors of one object, an optimizer, at one place of a state dict.
struct LiveSection {
  std::shared_ptr<LiveValues> owner;
  std::vector<PathElement> path;  ///< of the place
  std::string prefix;             ///< of its keys: "optim.", or empty
  KeyList wanted;                 ///< "<group>.<name>" of each plain value
  KeyList groups;                 ///< that have plain values
  /// Keys of its tensors, with what they are to the object.
  std::vector<std::pair<std::string, LiveLink>> tensors;

  /// Where a value of the object stands in the dict.
  [[nodiscard]] std::vector<PathElement> path_of(LiveValues::Place const& place) const {
    std::vector<PathElement> whole = path;
    whole.insert(whole.end(), place.path.begin(), place.path.end());
    return whole;
  }
};

/// The sections of a state dict, in order.
template <class Entries>
[[nodiscard]] std::vector<LiveSection> live_sections(Entries const& entries) {
  std::vector<LiveSection> sections;
  for (StateEntry const& entry : entries) {
    LiveLink const& link = entry.value.link();
    if (link.owner == nullptr || link.depth > entry.path.size()) {
      continue;
    }
    auto const end = entry.path.end() - static_cast<std::ptrdiff_t>(link.depth);
    auto at = std::find_if(sections.begin(), sections.end(), [&](LiveSection const& one) {
      return one.owner == link.owner &&
             std::equal(one.path.begin(), one.path.end(), entry.path.begin(), end);
    });
    if (at == sections.end()) {
      LiveSection made;
      made.owner = link.owner;
      made.path = {entry.path.begin(), end};
      made.prefix = made.path.empty() ? "" : flat_key(made.path) + ".";
      at = sections.insert(at, std::move(made));
    }
    if (entry.is_tensor()) {
      at->tensors.emplace_back(entry.key, link);
    } else {
      at->wanted.add(std::to_string(link.group) + "." + link.name);
      at->groups.add(std::to_string(link.group));
    }
  }
  return sections;
}

/// What a state dict lacks of its objects, and what it has too much.
struct LiveChanges {
  using Added = std::vector<std::pair<std::vector<PathElement>, LiveLink>>;
  KeyMap<Added> added;  ///< by the key that they come behind
  KeyList gone;
};

/// The values that the object of a section has now.
struct PlacesNow {
  [[nodiscard]] std::vector<LivePlace> operator()(LiveSection const& section) const {
    return section.owner->places();
  }
};

/// @param has        does the dict have this key?
/// @param places_of  the values that the object of a section has, or is going to have.
template <class Entries, class Has, class PlacesOf = PlacesNow>
[[nodiscard]] LiveChanges find_live_changes(Entries const& entries,
                                            Has const& has,
                                            PlacesOf const& places_of = {}) {
  LiveChanges changes;
  std::vector<LiveSection> const sections = live_sections(entries);
  if (sections.empty()) {
    return changes;
  }
  KeyList carried;
  for (LiveSection const& section : sections) {
    std::string last;
    LiveChanges::Added added;
    auto const flush = [&] {
      if (!last.empty() && !added.empty()) {
        changes.added.add(last, std::move(added));
      }
      added.clear();
    };
    for (LiveValues::Place const& place : places_of(section)) {
      std::vector<PathElement> path = section.path_of(place);
      std::string key = flat_key(path);
      if (place.is_carried) {
        carried.add(key);
      }
      if (has(key)) {
        flush();
        last = std::move(key);
      } else if (place.is_carried && section.groups.contains(std::to_string(place.group))) {
        added.emplace_back(std::move(path), LiveLink{section.owner, place.group, place.name,
                                                     place.path.size(), true});
      }
    }
    flush();
  }
  for (StateEntry const& entry : entries) {
    if (entry.is_live() && entry.value.link().is_carried && !carried.contains(entry.key)) {
      changes.gone.add(entry.key);
    }
  }
  return changes;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
