// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/state/detail/wire.hpp>
#include <shardmesh/state/number.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What there is to load under one key: of this rank's dict, or as rank 0 described it.
struct LoadSource {
  bool is_tensor = false;
  bool is_distributed = false;
  DType dtype = DType::float32;
  Shape shape;
  Value value;                        ///< if it is no tensor
  AnyTensor const* tensor = nullptr;  ///< null: on rank 0 only
  std::vector<std::byte> bytes = {};  ///< of a tensor that came with rank 0's description
  std::vector<PathElement> path = {};

  /// The elements of a tensor that this rank has all of, if it has so few that it might be a number.
  template <class Number = Value>
  [[nodiscard]] std::optional<Number> number() const {
    std::vector<std::byte> const held =
        tensor != nullptr && tensor->bytes() == size_of(dtype) ? tensor->local_bytes() : bytes;
    bool const is_one = is_tensor && volume(shape) == 1 && held.size() == size_of(dtype);
    return is_one ? number_of(dtype, held.data()) : std::nullopt;
  }
};

/// Everything that there is to load.
struct LoadSources {
  KeyMap<LoadSource> by_key;  ///< what optimizers have by now included
  /// The rank that sends whole tensors, in the numbering of the whole job; -1 if nobody does.
  int root = -1;
};

[[nodiscard]] inline LoadSource describe(StateEntry const& entry) {
  if (!entry.is_tensor()) {
    return {false, false, DType::float32, {}, entry.plain(), nullptr, {}, entry.path};
  }
  AnyTensor const& tensor = entry.tensor();
  return {true,      tensor.is_distributed(), tensor.dtype(), tensor.shape(), {}, &tensor, {},
          entry.path};
}

/// What rank 0 has, on every rank. Tensors that are not distributed in rank 0's `into` come along;
/// the others are only described.
/// @collective over `comm`.
template <Communicator Comm>
[[nodiscard]] LoadSources broadcast_sources(Comm const& comm,
                                            StateDict const& into,
                                            StateDict const& from) {
  WireWriter mine;
  if (comm.rank() == 0) {
    mine.number(from.size());
    for (StateEntry const& entry : from) {
      LoadSource const source = describe(entry);
      mine.text(entry.key);
      mine.path(source.path);
      mine.number(source.is_tensor ? 1 : 0);
      mine.value(source.value);
      mine.number(source.is_distributed ? 1 : 0);
      mine.number(static_cast<std::uint64_t>(source.dtype));
      mine.shape(source.shape);
      bool const follows = into.contains(entry.key) && into.at(entry.key).is_tensor() &&
                           into.at(entry.key).tensor().is_distributed();
      bool const goes_along = source.is_tensor && !source.is_distributed && !follows;
      mine.block(goes_along ? source.tensor->local_bytes() : std::vector<std::byte>{});
    }
  }
  auto const all = comm.all_gather(mine.bytes());
  WireReader reader(all[0]);
  LoadSources sources;
  for (std::uint64_t left = reader.number(); left > 0; --left) {
    std::string const key = reader.text();
    LoadSource source;
    source.path = reader.path();
    source.is_tensor = reader.number() != 0;
    source.value = reader.value();
    source.is_distributed = reader.number() != 0;
    source.dtype = static_cast<DType>(reader.number());
    source.shape = reader.shape();
    source.bytes = reader.block();
    if (comm.rank() == 0 && source.is_tensor) {
      source.tensor = &from.at(key).tensor();
    }
    sources.by_key.add(key, std::move(source));
  }
  sources.root = comm.world_ranks()[0];
  return sources;
}

/// What there is to load on this rank: from `from`, or with `broadcast` from rank 0's.
/// @collective over `comm`, if `broadcast` is set.
template <Communicator Comm>
[[nodiscard]] LoadSources find_sources(Comm const& comm,
                                       StateDict const& into,
                                       StateDict const& from,
                                       bool broadcast) {
  if (broadcast) {
    return broadcast_sources(comm, into, from);
  }
  LoadSources sources;
  for (StateEntry const& entry : from) {
    sources.by_key.add(entry.key, describe(entry));
  }
  return sources;
}

/// What there is to load as a `ValueFinder` looks at it.
struct SourceKeys {
  LoadSources const* sources;

  [[nodiscard]] static std::string describe() { return "the source"; }
  [[nodiscard]] std::vector<std::string> const& keys() const { return sources->by_key.keys(); }
  [[nodiscard]] bool contains(std::string const& key) const {
    return sources->by_key.find(key) != nullptr;
  }
  [[nodiscard]] index_t elements(std::string const& key) const {
    LoadSource const& source = sources->by_key.at(key);
    return source.is_tensor ? volume(source.shape) : index_t{-1};
  }
  [[nodiscard]] std::vector<PathElement> path(std::string const& key) const {
    return sources->by_key.at(key).path;
  }
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
