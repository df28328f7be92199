// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/save_plan.hpp.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

SHARDMESH_INLINE std::string item_id(SaveItem const& item) {
  return item.dtype ? concat(item.key, '\n', to_string(item.box.offset)) : item.key;
}

/// Items in first-seen order with the ranks that offer them.
struct Candidates {
  SaveItem const* item = nullptr;
  std::vector<int> ranks;
  std::vector<std::size_t> numbers;  ///< of the item in what each of them offers
  bool same_holders = true;          ///< all who offer it answer for each other
};

[[nodiscard]] inline std::string describe(SaveItem const& item) {
  return item.dtype ? to_string(item.box) + " of a " + std::string(to_string(*item.dtype)) +
                          " tensor of shape " + to_string(item.shape)
                    : "a plain value";
}

/// Throws unless two items can be parts of one thing: both plain values, or of equal dtype and shape;
/// the same part, if they stand at the same place.
inline void check_alike(SaveItem const& a, int rank_a, SaveItem const& b, int rank_b) {
  bool const same_place = a.dtype.has_value() == b.dtype.has_value() && item_id(a) == item_id(b);
  if (a.dtype != b.dtype || !(a.shape == b.shape) || (same_place && !(a.box == b.box))) {
    throw ShapeError("shardmesh::save: ranks " + std::to_string(rank_a) + " and " +
                     std::to_string(rank_b) + " offer different things as \"" + a.key +
                     "\": " + describe(a) + " against " + describe(b) +
                     "; give what is each rank's own names that differ between ranks");
  }
}

[[nodiscard]] inline std::vector<Candidates> collect(
    std::vector<std::vector<SaveItem>> const& offers) {
  std::vector<Candidates> found;
  std::unordered_map<std::string, std::size_t> index;
  std::unordered_map<std::string, std::size_t> first_of_key;
  for (std::size_t rank = 0; rank < offers.size(); ++rank) {
    auto const number = static_cast<int>(rank);
    for (std::size_t i = 0; i < offers[rank].size(); ++i) {
      SaveItem const& item = offers[rank][i];
      auto const [at, is_new] = index.emplace(item_id(item), found.size());
      if (is_new) {
        found.push_back({&item, {}, {}});
        Candidates const& of_key = found[first_of_key.emplace(item.key, at->second).first->second];
        check_alike(*of_key.item, of_key.ranks.empty() ? number : of_key.ranks.front(), item,
                    number);
      }
      Candidates& one = found[at->second];
      if (!is_new) {
        check_alike(*one.item, one.ranks.front(), item, number);
        one.same_holders =
            one.same_holders && item.holders != 0 && item.holders == one.item->holders;
      }
      one.ranks.push_back(number);
      one.numbers.push_back(i);
    }
  }
  return found;
}

/// The ranks that offer parts, for messages.
[[nodiscard]] inline std::string ranks_of(std::vector<Candidates const*> const& parts) {
  std::vector<int> ranks;
  for (Candidates const* const part : parts) {
    ranks.insert(ranks.end(), part->ranks.begin(), part->ranks.end());
  }
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  constexpr std::size_t most = 8;
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < std::min(most, ranks.size()); ++i) {
    text += concat(i == 0 ? "" : ", ", std::to_string(ranks[i]));
  }
  return ranks.size() > most ? concat(text, " and ", std::to_string(ranks.size() - most), " more")
                             : text;
}

/// Does every tensor have each element once? Volumes must add up, and no two boxes may overlap.
inline void check_coverage(std::vector<Candidates> const& candidates) {
  std::unordered_map<std::string, std::size_t> index;
  std::vector<std::vector<Candidates const*>> tensors;
  for (Candidates const& one : candidates) {
    if (one.item->dtype) {
      auto const [at, is_new] = index.emplace(one.item->key, tensors.size());
      if (is_new) {
        tensors.emplace_back();
      }
      tensors[at->second].push_back(&one);
    }
  }
  auto const part = [](Candidates const& one) {
    return concat(to_string(one.item->box), " of ", ranks_of({&one}));
  };
  for (auto const& parts : tensors) {
    SaveItem const& first = *parts.front()->item;
    index_t covered = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      covered += parts[i]->item->box.volume();
      for (std::size_t j = 0; j < i; ++j) {
        if (intersect(parts[i]->item->box, parts[j]->item->box)) {
          throw ShapeError(concat("shardmesh::save: parts of \"", first.key,
                                  "\" overlap: ", part(*parts[i]), " and ", part(*parts[j])));
        }
      }
    }
    if (covered != volume(first.shape)) {
      throw ShapeError(concat("shardmesh::save: the parts of \"", first.key, "\" hold ",
                              std::to_string(covered), " of its ",
                              std::to_string(volume(first.shape)), " elements: ", ranks_of(parts),
                              " offer some; every rank of its mesh must take part in the save"));
    }
  }
}

}  // namespace detail

SHARDMESH_INLINE std::vector<PlacedItem> plan_save(
    std::vector<std::vector<SaveItem>> const& offers) {
  std::vector<detail::Candidates> const candidates = detail::collect(offers);
  detail::check_coverage(candidates);
  std::vector<std::uint64_t> load(offers.size(), 0);
  std::vector<PlacedItem> placed;
  for (detail::Candidates const& one : candidates) {
    std::size_t owner = 0;  // of those who offer it
    auto const load_of = [&](std::size_t i) -> std::uint64_t& {
      return load[static_cast<std::size_t>(one.ranks[i])];
    };
    for (std::size_t i = 1; i < one.ranks.size(); ++i) {
      owner = one.item->dtype && load_of(i) < load_of(owner) ? i : owner;
    }
    load_of(owner) += one.item->length;
    placed.push_back({*one.item, one.ranks[owner], one.numbers[owner], 0, !one.same_holders});
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
