// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/memory/convert.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Throws KeyError for a key that a checkpoint has not, with the nearest one that it has, and the files
/// that it has lost.
template <class C>
[[noreturn]] void throw_missing(std::string const& key,
                                C const& catalog,
                                std::vector<std::string> const& keys) {
  std::string lost;
  if constexpr (requires { catalog.lost_files(); }) {
    for (auto const& [name, what] : catalog.lost_files()) {
      lost += ". It may be in a file that is not there: " + what;
    }
  }
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
  throw KeyError("shardmesh::load: " + std::string(catalog.describe()) + " has no \"" + key + "\"" +
                 (nearest.empty() ? ""
                                  : "; the nearest of its " + std::to_string(keys.size()) +
                                        " keys is \"" + nearest + "\"") +
                 (lost.empty() ? ". Load a state dict with the names that were saved" : lost));
}

/// What is to replace the local part of a tensor, collected in host memory: nothing is overwritten
/// before everything has been read.
class StagedTensor {
 public:
  StagedTensor(AnyTensor const& tensor, DType stored)
      : tensor_(tensor), stored_(stored), pieces_(tensor.pieces()), local_(tensor.bytes()) {}

  [[nodiscard]] std::vector<Piece> const& pieces() const noexcept { return pieces_; }
  [[nodiscard]] std::vector<Box> boxes() const {
    std::vector<Box> result;
    for (Piece const& piece : pieces_) {
      result.push_back(piece.box);
    }
    return result;
  }

  /// Takes the elements `common` of a piece.
  /// @param from  the first of them, of the stored type; `strides` in bytes.
  /// @throws InvalidArgument for an integer that does not fit the tensor's type.
  void place(Piece const& piece, Box const& common, void const* from, Shape const& strides) {
    std::size_t const bytes = size_of(tensor_.dtype());
    LocalPlace const to{sum(piece.local, difference(common.offset, piece.box.offset)),
                        tensor_.local_shape()};
    std::byte* const target = local_.data() + byte_offset(to, bytes);
    Shape const target_strides = byte_strides(to.shape, bytes);
    if (stored_ == tensor_.dtype()) {
      HostMemory::copy({from, target, common.extent, strides, target_strides, bytes});
      return;
    }
    auto const count = static_cast<std::size_t>(common.volume());
    std::vector<std::byte> packed(count * size_of(stored_));
    std::vector<std::byte> converted(count * bytes);
    HostMemory::copy({from, packed.data(), common.extent, strides,
                      byte_strides(common.extent, size_of(stored_)), size_of(stored_)});
    convert_elements(stored_, packed.data(), tensor_.dtype(), converted.data(), count);
    HostMemory::copy({converted.data(), target, common.extent, byte_strides(common.extent, bytes),
                      target_strides, bytes});
  }

  /// Overwrites the tensor.
  void apply() const { tensor_.assign(local_); }

 private:
  AnyTensor tensor_;
  DType stored_;
  std::vector<Piece> pieces_;
  std::vector<std::byte> local_;
};

/// The byte of a stored box where the elements `common` start.
[[nodiscard]] inline std::byte const* first_of(StoredBox const& data,
                                               Box const& box,
                                               Box const& common) {
  auto at = static_cast<index_t>(data.first);
  for (std::size_t d = 0; d < common.offset.size(); ++d) {
    at += (common.offset[d] - box.offset[d]) * data.strides[d];
  }
  return data.bytes.data() + at;
}

/// The terms of a partial tensor are combined later: as many copies of what was saved would be added.
inline void refuse_partial_target(std::string const& place, AnyTensor const& tensor) {
  if (tensor.layout().has_partial()) {
    throw InvalidArgument("shardmesh::load: " + place + " cannot be loaded into " +
                          to_string(tensor.layout()) +
                          ": every rank of a partial tensor has a term of the value, and a "
                          "checkpoint has the value itself; load into a tensor that is Replicate "
                          "or Shard");
  }
}

/// Makes room for a tensor, after checking that the checkpoint holds it: kind, shape, dtype, and all
/// elements that this rank needs.
/// @throws KeyError (a plain value), ShapeError, InvalidArgument (dtype; a partial tensor),
///         UnsupportedError (a dtype that is not known), CorruptError (it cannot be read; elements
///         that are missing).
template <class C>
[[nodiscard]] StagedTensor stage_tensor(C const& catalog,
                                        std::string const& key,
                                        AnyTensor const& tensor,
                                        DTypePolicy policy,
                                        CheckpointReport& report) {
  refuse_unreadable(catalog, key);
  StoredTensor const* const stored = catalog.tensor(key);
  std::string const place = catalog.describe() + ": \"" + key + "\"";
  if (stored == nullptr) {
    throw KeyError("shardmesh::load: " + place + " is a plain value, the state dict has a tensor");
  }
  refuse_unsupported(*stored, place);
  refuse_partial_target(place, tensor);
  if (!(stored->shape == tensor.shape())) {
    throw ShapeError("shardmesh::load: " + place + " has shape " + to_string(stored->shape) +
                     ", the tensor to load into " + to_string(tensor.shape()) +
                     "; make the model with the shapes that were saved");
  }
  if (stored->dtype != tensor.dtype()) {
    bool const converts = is_convertible(stored->dtype, tensor.dtype());
    if (policy == DTypePolicy::error || !converts) {
      throw InvalidArgument("shardmesh::load: " + place + " holds " +
                            std::string(to_string(stored->dtype)) + ", the tensor to load into " +
                            std::string(to_string(tensor.dtype())) + "; " +
                            (converts ? "make the model with the dtype that was saved, or load "
                                        "with DTypePolicy::cast"
                                      : "there is no conversion between the two; make the model "
                                        "with the dtype that was saved"));
    }
    if (policy == DTypePolicy::warn) {
      report.cast.push_back(key + ": " + std::string(to_string(stored->dtype)) + " to " +
                            std::string(to_string(tensor.dtype())));
    }
  }
  StagedTensor staged(tensor, stored->dtype);
  index_t wanted = 0;
  index_t found = 0;
  for (Piece const& piece : staged.pieces()) {
    wanted += piece.box.volume();
    for (Box const& box : stored->boxes) {
      if (auto const common = intersect(piece.box, box)) {
        found += common->volume();
      }
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
  return staged;
}

/// The keys under which the plain value of `entry` may be stored: its own, or, where PyTorch 2.3
/// kept a whole container in one item, those of the containers that it is in, outermost first.
template <class C>
[[nodiscard]] std::vector<std::string> value_keys(C const& catalog, StateEntry const& entry) {
  if (catalog.contains(entry.key)) {
    refuse_unreadable(catalog, entry.key);
    if (catalog.tensor(entry.key) != nullptr) {
      throw KeyError("shardmesh::load: " + catalog.describe() + ": \"" + entry.key +
                     "\" is a tensor, the state dict has a plain value");
    }
    return {entry.key};
  }
  std::vector<std::string> keys;
  for (std::size_t depth = 1; depth < entry.path.size(); ++depth) {
    std::string prefix = flat_key(std::span(entry.path).first(depth));
    if (catalog.contains(prefix) && catalog.tensor(prefix) == nullptr &&
        problem_of(catalog, prefix) == nullptr) {
      keys.push_back(std::move(prefix));
    }
  }
  return keys;
}

/// The element of a list or dict that a step of a path names, or nullptr.
[[nodiscard]] inline Value const* element_of(Value const& container, PathElement const& step) {
  if (auto const* list = container.get<Value::List>(); list != nullptr && !step.is_key()) {
    auto const at = static_cast<std::size_t>(step.index());
    return at < list->size() ? &(*list)[at] : nullptr;
  }
  if (auto const* dict = container.get<Value::Dict>(); dict != nullptr && step.is_key()) {
    for (auto const& [name, value] : *dict) {
      if (name == step.key()) {
        return &value;
      }
    }
  }
  return nullptr;
}

/// The value of `entry` in what is stored under `key`, one of its `value_keys`; nullptr if it is not
/// in there.
[[nodiscard]] inline Value const* value_in(Value const& stored,
                                           std::string const& key,
                                           StateEntry const& entry) {
  if (key == entry.key) {
    return &stored;
  }
  std::size_t depth = 1;  // of the container: no other prefix of the path is as long as its key
  while (depth < entry.path.size() &&
         flat_key(std::span(entry.path).first(depth)).size() < key.size()) {
    ++depth;
  }
  Value const* part = &stored;
  for (; part != nullptr && depth < entry.path.size(); ++depth) {
    part = element_of(*part, entry.path[depth]);
  }
  return part;
}

/// What is to replace an entry of a state dict; neither: it is left as it is.
struct Staged {
  std::optional<StagedTensor> tensor;
  std::optional<Value> value;
};

/// Overwrites the tensors and plain values of a state dict by what was staged for them.
inline void apply(std::vector<Staged> staged, StateDict& dict) {
  std::vector<std::pair<std::string, Value>> values;
  auto part = staged.begin();
  for (StateEntry const& entry : dict) {
    if (part->tensor) {
      part->tensor->apply();
    } else if (part->value) {
      values.emplace_back(entry.key, std::move(*part->value));
    }
    ++part;
  }
  for (auto& [key, value] : values) {
    dict.set(key, std::move(value));
  }
}

/// Reads a state dict from a catalog of this rank's own, without the help of others.
template <Catalog C>
[[nodiscard]] std::vector<Staged> stage_alone(C& catalog, StateDict const& dict) {
  std::vector<Staged> staged;
  CheckpointReport report;
  for (StateEntry const& entry : dict) {
    Staged& one = staged.emplace_back();
    if (!entry.is_tensor()) {
      for (std::string const& key : value_keys(catalog, entry)) {
        Value const whole = catalog.value(key);
        if (Value const* const part = value_in(whole, key, entry); part != nullptr && !one.value) {
          one.value = *part;
        }
      }
    } else if (catalog.contains(entry.key)) {
      one.tensor.emplace(
          stage_tensor(catalog, entry.key, entry.tensor(), DTypePolicy::error, report));
      StoredTensor const& stored = *catalog.tensor(entry.key);
      for (std::size_t i = 0; i < stored.boxes.size(); ++i) {
        StoredBox data;
        for (Piece const& piece : one.tensor->pieces()) {
          if (auto const common = intersect(piece.box, stored.boxes[i])) {
            if (data.bytes.empty()) {
              data = catalog.read_box(entry.key, i);
            }
            one.tensor->place(piece, *common, first_of(data, stored.boxes[i], *common),
                              data.strides);
          }
        }
      }
    }
    if (!one.tensor && !one.value) {
      throw_missing(entry.key, catalog, catalog.keys());
    }
  }
  return staged;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
