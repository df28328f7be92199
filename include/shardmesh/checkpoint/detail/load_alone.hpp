// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/load_values.hpp>
#include <shardmesh/checkpoint/detail/stage.hpp>
#include <shardmesh/checkpoint/detail/tied.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/value_finder.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Reads what a tensor needs of one that is stored.
template <Catalog C>
void read_alone(C& catalog,
                std::string const& key,
                StoredTensor const& stored,
                StagedTensor& staged) {
  for (std::size_t i = 0; i < stored.boxes.size(); ++i) {
    StoredBox data;
    for (Piece const& piece : staged.pieces()) {
      if (auto const common = intersect(piece.box, stored.boxes[i])) {
        if (data.bytes.empty()) {
          data = catalog.read_box(key, i);
        }
        staged.place(piece, *common, first_of(data, stored.boxes[i], *common), data.strides);
      }
    }
  }
}

/// Loads a state dict from a catalog of this rank's own, without the help of others. Everything is
/// read and checked before anything is overwritten.
template <Catalog C>
void load_alone(C& catalog, StateDict& dict) {
  CheckpointReport report;
  HostBuckets memory;
  std::vector<Staged> staged(dict.size());
  std::vector<bool> missed(dict.size(), false);
  LoadValues<std::remove_const_t<C>> values(catalog, dict);
  std::size_t position = 0;
  for (StateEntry const& entry : dict) {
    bool const is_stored = catalog.contains(entry.key);
    if (is_stored && loads_as_tensor(catalog, entry)) {
      auto& tensor = staged[position].tensor;
      tensor.emplace(
          stage_tensor(catalog, entry.key, entry.tensor(), DTypePolicy::error, report, memory));
      read_alone(catalog, entry.key, *catalog.tensor(entry.key), *tensor);
    } else if (!entry.is_live()) {
      missed[position] = !values.want(entry, position);
    }
    ++position;
  }
  auto const refuse = [&](std::string const& key, std::string const& why) {
    throw_missing(key, catalog, catalog.keys(), why);
  };
  forgive_tied(dict, {}, [](std::string const&) { return false; }, missed);
  std::vector<std::string> missing;
  position = 0;
  for (StateEntry const& entry : dict) {
    if (missed[position++]) {
      missing.push_back(entry.key);
    }
  }
  if (!missing.empty()) {
    throw_missing(missing.front(), catalog, catalog.keys(), "",
                  {missing.begin() + 1, missing.end()});
  }
  KeyMap<Value> read;
  for (std::string const& key : values.keys()) {
    read.add(key, read_plain(catalog, key));
  }
  values.stage(
      dict, [&read](std::string const& key) -> Value const& { return read.at(key); },
      DTypePolicy::error, report, staged, refuse);
  check_tied(dict, staged, catalog.describe());
  std::vector<std::string> const left_out = values.left_out();
  ReadyLoad(std::move(staged), std::move(values), dict).apply();
  warn_of_left_out("shardmesh::load", left_out);
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
