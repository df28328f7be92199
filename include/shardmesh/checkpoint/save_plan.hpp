// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {

/// One thing that a rank offers to write: a box of a tensor, or a plain value.
struct SaveItem {
  std::string key;
  std::vector<PathElement> path;
  std::optional<DType> dtype;  ///< of a tensor; nothing for a plain value
  Shape shape;                 ///< global shape of the tensor
  Box box;
  std::uint64_t length = 0;  ///< bytes of the stored item

  [[nodiscard]] friend bool operator==(SaveItem const&, SaveItem const&) = default;
};

/// An item with the place that it gets.
struct PlacedItem {
  SaveItem item;
  int rank = 0;              ///< who writes it, into its own file
  std::uint64_t offset = 0;  ///< in that file
};

/// Decides who writes what and where, from what every rank offers. Pure: every rank decides the same.
///
/// Boxes that several ranks offer (replicas: same key, same offset) go to the rank with the fewest
/// bytes so far, the lowest of several; plain values to the lowest rank that offers them. Plain
/// values come first in a file, then tensors, in the order in which they were offered.
///
/// @param offers by rank.
/// @throws ShapeError if the boxes of a tensor do not cover it exactly, or two ranks offer different
///         things under one key.
[[nodiscard]] inline std::vector<PlacedItem> plan_save(
    std::vector<std::vector<SaveItem>> const& offers);

namespace detail {

[[nodiscard]] inline std::string item_id(SaveItem const& item) {
  return item.key + (item.dtype ? "\n" + to_string(item.box.offset) : std::string());
}

/// Items in first-seen order with the ranks that offer them.
struct Candidates {
  SaveItem const* item = nullptr;
  std::vector<int> ranks;
};

[[nodiscard]] inline std::vector<Candidates> collect(
    std::vector<std::vector<SaveItem>> const& offers) {
  std::vector<Candidates> found;
  std::unordered_map<std::string, std::size_t> index;
  for (std::size_t rank = 0; rank < offers.size(); ++rank) {
    for (SaveItem const& item : offers[rank]) {
      auto const [at, is_new] = index.emplace(item_id(item), found.size());
      if (is_new) {
        found.push_back({&item, {}});
      }
      SaveItem const& first = *found[at->second].item;
      bool const same =
          first.dtype == item.dtype && first.shape == item.shape && first.box == item.box;
      if (!same) {
        throw ShapeError("shardmesh::save: ranks offer different things as \"" + item.key +
                         "\": " + to_string(first.box) + " of " + to_string(first.shape) +
                         " against " + to_string(item.box) + " of " + to_string(item.shape) +
                         "; give local values names that differ between ranks");
      }
      found[at->second].ranks.push_back(static_cast<int>(rank));
    }
  }
  return found;
}

/// Does every tensor have each element once? Volumes must add up, and no two boxes may overlap.
inline void check_coverage(std::vector<Candidates> const& candidates) {
  std::unordered_map<std::string, std::size_t> index;
  std::vector<std::vector<SaveItem const*>> tensors;
  for (Candidates const& one : candidates) {
    if (one.item->dtype) {
      auto const [at, is_new] = index.emplace(one.item->key, tensors.size());
      if (is_new) {
        tensors.emplace_back();
      }
      tensors[at->second].push_back(one.item);
    }
  }
  for (auto const& items : tensors) {
    std::string const& key = items.front()->key;
    index_t covered = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      covered += items[i]->box.volume();
      for (std::size_t j = 0; j < i; ++j) {
        if (intersect(items[i]->box, items[j]->box)) {
          throw ShapeError("shardmesh::save: parts of \"" + key + "\" overlap: " +
                           to_string(items[i]->box) + " and " + to_string(items[j]->box));
        }
      }
    }
    if (covered != volume(items.front()->shape)) {
      throw ShapeError("shardmesh::save: the parts of \"" + key + "\" hold " +
                       std::to_string(covered) + " of its " +
                       std::to_string(volume(items.front()->shape)) +
                       " elements; every rank of its mesh must take part in the save");
    }
  }
}

}  // namespace detail

inline std::vector<PlacedItem> plan_save(std::vector<std::vector<SaveItem>> const& offers) {
  std::vector<detail::Candidates> const candidates = detail::collect(offers);
  detail::check_coverage(candidates);
  std::vector<std::uint64_t> load(offers.size(), 0);
  std::vector<PlacedItem> placed;
  for (detail::Candidates const& one : candidates) {
    int owner = one.ranks.front();
    for (int rank : one.ranks) {
      bool const lighter = one.item->dtype && load[static_cast<std::size_t>(rank)] <
                                                  load[static_cast<std::size_t>(owner)];
      owner = lighter ? rank : owner;
    }
    load[static_cast<std::size_t>(owner)] += one.item->length;
    placed.push_back({*one.item, owner, 0});
  }
  std::vector<std::uint64_t> end(offers.size(), 0);
  for (bool tensors : {false, true}) {
    for (PlacedItem& one : placed) {
      if (one.item.dtype.has_value() == tensors) {
        one.offset = end[static_cast<std::size_t>(one.rank)];
        end[static_cast<std::size_t>(one.rank)] += one.item.length;
      }
    }
  }
  return placed;
}

}  // namespace v0
}  // namespace shardmesh
