// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/whole_containers.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/dtype_names.hpp>
#include <shardmesh/checkpoint/format/pickle_names.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/save_options.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/memory/host_block.hpp>
#include <shardmesh/state/checksum.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What this rank has of one item of its offer.
struct SaveSource {
  AnyTensor const* tensor = nullptr;
  Shape local;          ///< of the box, in the local tensor
  format::Bytes value;  ///< the archive of a plain value
};

/// What this rank could write, and where it would take it from.
struct SaveOffer {
  std::vector<SaveItem> items;
  std::vector<SaveSource> sources;        ///< by item
  std::shared_ptr<StateDict const> dict;  ///< that the sources are of, if not the caller's
};

inline void refuse_partial(StateEntry const& entry) {
  if (entry.tensor().layout().has_partial()) {
    throw InvalidArgument("shardmesh::save: \"" + entry.key + "\" is " +
                          to_string(entry.tensor().layout()) +
                          ": a partial tensor has no elements yet; redistribute it to Replicate "
                          "or Shard first");
  }
}

/// Stands for the ranks that answer for each other's replicas of a tensor, see `SaveItem::holders`.
[[nodiscard]] inline std::uint64_t holders_of(AnyTensor const& tensor) {
  std::vector<int> const ranks =
      tensor.kind() == TensorKind::sharded ? tensor.replicas().ranks : tensor.group().ranks;
  std::string text;
  for (int const rank : ranks) {
    text += std::to_string(rank) + " ";
  }
  return ranks.empty() ? 0 : hash_text(text) | 1U;
}

inline void offer_tensor(StateEntry const& entry,
                         format::TensorItemFrames& frames,
                         SaveOffer& offer) {
  AnyTensor const& tensor = entry.tensor();
  refuse_partial(entry);
  std::vector<Piece> pieces = tensor.pieces();
  if (volume(tensor.shape()) == 0) {  // one item must say that it exists
    pieces.clear();
    if (tensor.is_first()) {
      pieces.push_back({Box::whole(tensor.shape()), Shape(tensor.shape().size(), 0)});
    }
  }
  std::uint64_t const holders = holders_of(tensor);
  for (Piece const& piece : pieces) {
    if (piece.box.empty() && volume(tensor.shape()) > 0) {
      continue;
    }
    std::uint64_t const size = frames.of(tensor.dtype(), piece.box.extent).size();
    offer.items.push_back(
        {entry.key, entry.path, tensor.dtype(), tensor.shape(), piece.box, size, holders});
    offer.sources.push_back({&tensor, piece.local, {}});
  }
}

/// The parameters of a group of an optimizer, if that is what a value is: a list of names under
/// ..., "param_groups", number, "params".
[[nodiscard]] inline std::optional<std::vector<std::string>> group_names(
    std::vector<PathElement> const& path, Value const& value) {
  std::size_t const depth = path.size();
  Value::List const* const list = depth < 3 ? nullptr : value.get<Value::List>();
  if (list == nullptr || !(path[depth - 1] == PathElement("params")) ||
      !(path[depth - 3] == PathElement("param_groups"))) {
    return std::nullopt;
  }
  std::vector<std::string> names;
  for (Value const& one : *list) {
    std::string const* const name = one.get<std::string>();
    if (name == nullptr) {
      return std::nullopt;
    }
    names.push_back(*name);
  }
  return names;
}

/// @throws UnsupportedError for elements that a checkpoint of PyTorch cannot name.
inline void refuse_foreign_dtypes(StateDict const& dict) {
  for (StateEntry const& entry : dict) {
    if (entry.is_tensor() && !format::is_torch_dtype(entry.tensor().dtype())) {
      throw UnsupportedError("shardmesh::save: \"" + entry.key + "\" is " +
                             std::string(to_string(entry.tensor().dtype())) +
                             ", which PyTorch has not and its checkpoints cannot hold; save it as "
                             "safetensors");
    }
  }
}

/// Does PyTorch store a list as one value? Not if it, or a list in it, has a dict.
[[nodiscard]] inline bool is_one_value(Value::List const& list) {
  for (Value const& item : list) {
    auto const* const inner = item.get<Value::List>();
    if (item.get<Value::Dict>() != nullptr || (inner != nullptr && !is_one_value(*inner))) {
      return false;
    }
  }
  return true;
}

/// Offers a plain value as PyTorch stores it: dicts, and lists that have some, element by element.
/// (Of an empty dict PyTorch stores nothing; here it is a value.)
/// @param f  f(path, value) hears of each.
template <class F>
void for_each_part(std::vector<PathElement> const& path, Value const& value, F const& f) {
  auto const inside = [&](PathElement step, Value const& part) {
    std::vector<PathElement> longer = path;
    longer.push_back(std::move(step));
    for_each_part(longer, part, f);
  };
  auto const* const dict = value.get<Value::Dict>();
  auto const* const list = value.get<Value::List>();
  if (dict != nullptr && !dict->empty()) {
    for (auto const& [name, part] : *dict) {
      inside(name, part);
    }
  } else if (list != nullptr && !is_one_value(*list)) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      inside(static_cast<index_t>(i), (*list)[i]);
    }
  } else {
    f(path, value);
  }
}

/// @throws KeyError if an element would get the key of another value.
inline void offer_value(StateDict const& dict,
                        StateEntry const& entry,
                        Containers containers,
                        KeyList& elements,
                        SaveOffer& offer) {
  auto const offer_part = [&](std::vector<PathElement> const& path, Value const& value) {
    std::string key = path.size() == entry.path.size() ? entry.key : flat_key(path);
    if (key != entry.key && (dict.contains(key) || !elements.add(key))) {
      throw KeyError("shardmesh::save: an element of \"" + entry.key +
                     "\" has the key of another value, \"" + key +
                     "\"; names must differ after joining with dots");
    }
    format::refuse_harmful(value, key);
    format::Bytes archive = format::write_bytes_item(value);
    offer.items.push_back(
        {std::move(key), path, std::nullopt, {}, {}, archive.size(), 0, group_names(path, value)});
    offer.sources.push_back({nullptr, {}, std::move(archive)});
  };
  if (containers == Containers::whole) {
    offer_part(entry.path, entry.plain());
  } else {
    for_each_part(entry.path, entry.plain(), offer_part);
  }
}

/// @param dict  must outlive the offer.
[[nodiscard]] inline SaveOffer make_offer(StateDict const& dict,
                                          Containers containers = Containers::elements) {
  SaveOffer offer;
  if (auto current = up_to_date(dict)) {
    offer.dict = std::make_shared<StateDict const>(std::move(*current));
  }
  if (containers == Containers::whole) {
    offer.dict = std::make_shared<StateDict const>(
        with_whole_containers(offer.dict != nullptr ? *offer.dict : dict));
  }
  StateDict const& all = offer.dict != nullptr ? *offer.dict : dict;
  KeyList elements;
  format::TensorItemFrames frames;
  for (StateEntry const& entry : all) {
    if (entry.is_tensor()) {
      offer_tensor(entry, frames, offer);
    } else {
      offer_value(all, entry, containers, elements, offer);
    }
  }
  return offer;
}

/// The elements of a box of a local tensor, row-major, in host memory.
/// @param local  the box's place in the local tensor.
[[nodiscard]] inline HostBlock box_elements(AnyTensor const& tensor,
                                            Shape const& local,
                                            Shape const& extent) {
  std::size_t const bytes = size_of(tensor.dtype());
  HostBlock elements(static_cast<std::size_t>(volume(extent)) * bytes);
  LocalPlace const from{local, tensor.local_shape()};
  if (!elements.empty()) {
    tensor.copy_box({static_cast<std::byte const*>(tensor.data()) + byte_offset(from, bytes),
                     elements.data(), extent, byte_strides(tensor.local_shape(), bytes),
                     byte_strides(extent, bytes), bytes});
  }
  return elements;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
