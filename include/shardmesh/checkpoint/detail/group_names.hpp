// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <iterator>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <shardmesh/checkpoint/detail/save_offer.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The lists of all ranks for one group.
struct UnitedNames {
  std::vector<std::string> const* first = nullptr;
  bool differ = false;
  std::vector<std::string> all;  ///< each name once
  std::unordered_set<std::string> seen;
  format::Bytes archive;

  void add(std::vector<std::string> const& names) {
    if (first == nullptr) {
      first = &names;
    } else if (names == *first) {
      return;
    } else {
      differ = true;
    }
    for (std::string const& name : names) {
      if (seen.insert(name).second) {
        all.push_back(name);
      }
    }
  }
};

/// Ranks that hold different parameters (stages of a pipeline) have different names in one group of their
/// optimizers. The group that is saved has all of them, rank after rank.
/// @param offers  of all ranks; changed alike on all of them.
/// @param own     this rank's, changed in the same way.
inline void unite_group_names(std::vector<std::vector<SaveItem>>& offers, SaveOffer& own) {
  std::unordered_map<std::string, UnitedNames> groups;
  for (std::vector<SaveItem> const& offer : offers) {
    for (SaveItem const& item : offer) {
      if (item.names) {
        groups[item.key].add(*item.names);
      }
    }
  }
  for (auto one = groups.begin(); one != groups.end();) {
    UnitedNames& group = one->second;
    if (group.differ) {
      group.archive =
          format::write_bytes_item(Value(Value::List(group.all.begin(), group.all.end())));
    }
    one = group.differ ? std::next(one) : groups.erase(one);
  }
  auto const united = [&groups](SaveItem const& item) {
    auto const found = item.names ? groups.find(item.key) : groups.end();
    return found == groups.end() ? nullptr : &found->second;
  };
  for (std::size_t i = 0; i < own.items.size(); ++i) {
    if (UnitedNames const* const group = united(own.items[i])) {
      own.items[i].length = group->archive.size();
      own.sources[i].value = group->archive;
    }
  }
  for (std::vector<SaveItem>& offer : offers) {
    for (SaveItem& item : offer) {
      if (UnitedNames const* const group = united(item)) {
        item.length = group->archive.size();
      }
    }
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
