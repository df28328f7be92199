// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/state/detail/wire.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh::inline v0::detail {

/// What there is to load under one key: of this rank's dict, or as rank 0 described it.
struct LoadSource {
  bool is_tensor = false;
  bool is_distributed = false;
  DType dtype = DType::float32;
  Shape shape;
  Value value;                        ///< if it is no tensor
  AnyTensor const* tensor = nullptr;  ///< null: on rank 0 only
  std::vector<std::byte> bytes;       ///< of a tensor that came with rank 0's description
};

/// Everything that there is to load, by key.
class LoadSources {
 public:
  LoadSources() = default;
  explicit LoadSources(StateDict const& from) {
    for (StateEntry const& entry : from) {
      add(entry.key, describe(entry));
    }
  }

  void add(std::string const& key, LoadSource source) {
    index_.emplace(key, sources_.size());
    keys_.push_back(key);
    sources_.push_back(std::move(source));
  }

  /// nullptr if there is no such key.
  [[nodiscard]] LoadSource const* find(std::string const& key) const {
    auto const at = index_.find(key);
    return at == index_.end() ? nullptr : &sources_[at->second];
  }
  [[nodiscard]] std::vector<std::string> const& keys() const noexcept { return keys_; }

  /// The rank that sends whole tensors, in the numbering of the whole job; -1 if nobody does.
  [[nodiscard]] int root() const noexcept { return root_; }
  void set_root(int rank) noexcept { root_ = rank; }

  [[nodiscard]] static LoadSource describe(StateEntry const& entry) {
    if (!entry.is_tensor()) {
      return {false, false, DType::float32, {}, entry.plain(), nullptr, {}};
    }
    AnyTensor const& tensor = entry.tensor();
    return {true, tensor.is_distributed(), tensor.dtype(), tensor.shape(), {}, &tensor, {}};
  }

 private:
  std::vector<std::string> keys_;
  std::vector<LoadSource> sources_;
  std::unordered_map<std::string, std::size_t> index_;
  int root_ = -1;
};

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
      LoadSource const source = LoadSources::describe(entry);
      mine.text(entry.key);
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
    source.is_tensor = reader.number() != 0;
    source.value = reader.value();
    source.is_distributed = reader.number() != 0;
    source.dtype = static_cast<DType>(reader.number());
    source.shape = reader.shape();
    source.bytes = reader.block();
    if (comm.rank() == 0 && source.is_tensor) {
      source.tensor = &from.at(key).tensor();
    }
    sources.add(key, std::move(source));
  }
  sources.set_root(comm.world_ranks()[0]);
  return sources;
}

}  // namespace shardmesh::inline v0::detail
