// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh::inline v0 {

namespace detail {

/// Throws KeyError for a key that a checkpoint has not, with the nearest one that it has.
[[noreturn]] inline void throw_missing(std::string const& key,
                                       std::string const& where,
                                       std::vector<std::string> const& keys) {
  std::size_t best = 0;
  std::string nearest;
  for (std::string const& other : keys) {
    std::size_t same = 0;
    while (same < key.size() && same < other.size() &&
           key[key.size() - 1 - same] == other[other.size() - 1 - same]) {
      ++same;
    }
    if (same > best) {
      best = same;
      nearest = other;
    }
  }
  throw KeyError("shardmesh::load: " + where + " has no \"" + key + "\"" +
                 (nearest.empty() ? ""
                                  : "; the nearest of its " + std::to_string(keys.size()) +
                                        " keys is \"" + nearest + "\"") +
                 ". Load a state dict with the names that were saved");
}

/// Reads what this rank needs of one tensor into row-major host memory of its local shape.
template <Catalog C>
[[nodiscard]] std::vector<std::byte> stage_tensor(C& catalog,
                                                  std::string const& key,
                                                  AnyTensor const& tensor) {
  StoredTensor const* const stored = catalog.tensor(key);
  std::string const place = catalog.describe() + ": \"" + key + "\"";
  if (stored == nullptr) {
    throw KeyError("shardmesh::load: " + place + " is a plain value, the state dict has a tensor");
  }
  if (!(stored->shape == tensor.shape())) {
    throw ShapeError("shardmesh::load: " + place + " has shape " + to_string(stored->shape) +
                     ", the tensor to load into " + to_string(tensor.shape()) +
                     "; make the model with the shapes that were saved");
  }
  if (stored->dtype != tensor.dtype()) {
    throw InvalidArgument("shardmesh::load: " + place + " holds " +
                          std::string(to_string(stored->dtype)) + ", the tensor to load into " +
                          std::string(to_string(tensor.dtype())) +
                          "; make the model with the dtype that was saved");
  }
  std::vector<std::byte> local(tensor.bytes());
  std::size_t const bytes = size_of(tensor.dtype());
  std::vector<Piece> const pieces = tensor.pieces();
  index_t wanted = 0;
  index_t found = 0;
  for (Piece const& piece : pieces) {
    wanted += piece.box.volume();
  }
  for (std::size_t i = 0; i < stored->boxes.size() && found < wanted; ++i) {
    Box const& box = stored->boxes[i];
    StoredBox data;
    bool read = false;
    for (Piece const& piece : pieces) {
      auto const common = intersect(piece.box, box);
      if (!common) {
        continue;
      }
      if (!read) {
        data = catalog.read_box(key, i);
        read = true;
      }
      index_t from = static_cast<index_t>(data.first);
      for (std::size_t d = 0; d < common->offset.size(); ++d) {
        from += (common->offset[d] - box.offset[d]) * data.strides[d];
      }
      LocalPlace const to{sum(piece.local, difference(common->offset, piece.box.offset)),
                          tensor.local_shape()};
      HostMemory::copy({data.bytes.data() + from, local.data() + byte_offset(to, bytes),
                        common->extent, data.strides, byte_strides(to.shape, bytes), bytes});
      found += common->volume();
    }
  }
  if (found != wanted) {
    throw CorruptError(
        catalog.describe(), 0,
        "shardmesh::load: " + place + " holds only " + std::to_string(found) + " of the " +
            std::to_string(wanted) +
            " elements that this rank needs; it is incomplete, or a stream of a rank "
            "that held other parts");
  }
  return local;
}

/// The plain value of a key; where PyTorch 2.3 kept a whole container in one item, the part of it.
template <Catalog C>
[[nodiscard]] Value stage_value(C& catalog, StateEntry const& entry) {
  if (catalog.contains(entry.key)) {
    if (catalog.tensor(entry.key) != nullptr) {
      throw KeyError("shardmesh::load: " + catalog.describe() + ": \"" + entry.key +
                     "\" is a tensor, the state dict has a plain value");
    }
    return catalog.value(entry.key);
  }
  std::string prefix;
  for (std::size_t depth = 0; depth + 1 < entry.path.size(); ++depth) {
    prefix += (prefix.empty() ? "" : ".") + to_string(entry.path[depth]);
    if (!catalog.contains(prefix) || catalog.tensor(prefix) != nullptr) {
      continue;
    }
    Value part = catalog.value(prefix);
    bool good = true;
    for (std::size_t i = depth + 1; good && i < entry.path.size(); ++i) {
      good = false;
      if (auto const* list = part.get<Value::List>(); list != nullptr && !entry.path[i].is_key()) {
        auto const at = static_cast<std::size_t>(entry.path[i].index());
        if (at < list->size()) {
          part = Value((*list)[at]);
          good = true;
        }
      } else if (auto const* dict = part.get<Value::Dict>();
                 dict != nullptr && entry.path[i].is_key()) {
        for (auto const& [name, value] : *dict) {
          if (name == entry.path[i].key()) {
            part = Value(value);
            good = true;
            break;
          }
        }
      }
    }
    if (good) {
      return part;
    }
  }
  throw_missing(entry.key, catalog.describe(), catalog.keys());
}

/// What was read for one entry, before anything is overwritten.
struct Staged {
  std::vector<std::byte> bytes;  ///< of a tensor
  Value value;                   ///< of anything else
};

template <Catalog C>
[[nodiscard]] std::vector<Staged> stage(C& catalog, StateDict const& dict) {
  std::vector<Staged> staged;
  for (StateEntry const& entry : dict) {
    if (!entry.is_tensor()) {
      staged.push_back({{}, stage_value(catalog, entry)});
      continue;
    }
    if (!catalog.contains(entry.key)) {
      throw_missing(entry.key, catalog.describe(), catalog.keys());
    }
    staged.push_back({stage_tensor(catalog, entry.key, entry.tensor()), {}});
  }
  return staged;
}

/// Overwrites the tensors and plain values of a state dict by what was staged for them.
inline void apply(std::vector<Staged> staged, StateDict& dict) {
  std::vector<std::pair<std::string, Value>> values;
  auto part = staged.begin();
  for (StateEntry const& entry : dict) {
    if (entry.is_tensor()) {
      entry.tensor().assign(part->bytes);
    } else {
      values.emplace_back(entry.key, std::move(part->value));
    }
    ++part;
  }
  for (auto& [key, value] : values) {
    dict.set(key, std::move(value));
  }
}

/// Throws on every rank if `error` is set on any: there what happened, elsewhere RankFailed with the
/// first failing rank's words.
template <Communicator Comm>
void agree_on_failure(Comm const& comm, char const* operation, std::exception_ptr const& error) {
  std::string text;
  if (error) {
    try {
      std::rethrow_exception(error);
    } catch (std::exception const& problem) {
      text = problem.what();
    } catch (...) {
      text = "an exception that is no std::exception";
    }
  }
  auto const problems = all_gather_text(comm, text);
  if (error) {
    std::rethrow_exception(error);
  }
  for (std::size_t rank = 0; rank < problems.size(); ++rank) {
    if (!problems[rank].empty()) {
      int const world = comm.world_ranks()[rank];
      throw RankFailed(world, std::string(operation) + ": rank " + std::to_string(world) +
                                  " failed: " + problems[rank]);
    }
  }
}

}  // namespace detail

/// Loads a state dict in place from a catalog that `open()` makes on each rank. Everything is read
/// and checked, on all ranks, before the first tensor is written: a load that fails on any rank
/// leaves every tensor on every rank as it was.
///
/// Tensors get the part that their own layout asks for, whatever layout was saved. Plain values of
/// the dict are replaced. Keys of the checkpoint that the dict has not are passed over.
///
/// @throws KeyError, ShapeError, InvalidArgument (dtype), CorruptError, IoError on ranks that see
///         the problem, RankFailed on the others.
/// @collective over `comm`.
template <Communicator Comm, class Open>
void load_from(Comm const& comm, Open&& open, StateDict& dict) {
  std::vector<detail::Staged> staged;
  std::exception_ptr error;
  try {
    auto catalog = open();
    staged = detail::stage(catalog, dict);
  } catch (...) {
    error = std::current_exception();
  }
  detail::agree_on_failure(comm, "shardmesh::load", error);
  detail::apply(std::move(staged), dict);
}

}  // namespace shardmesh::inline v0
