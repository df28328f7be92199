// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/core/error.hpp>
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

inline void offer_tensor(StateEntry const& entry, SaveOffer& offer) {
  AnyTensor const& tensor = entry.tensor();
  refuse_partial(entry);
  std::vector<Piece> pieces = tensor.pieces();
  if (volume(tensor.shape()) == 0) {  // one item must say that it exists
    pieces.clear();
    if (tensor.is_first()) {
      pieces.push_back({Box::whole(tensor.shape()), Shape(tensor.shape().size(), 0)});
    }
  }
  for (Piece const& piece : pieces) {
    if (piece.box.empty() && volume(tensor.shape()) > 0) {
      continue;
    }
    format::TensorItemFrame const frame(tensor.dtype(), piece.box.extent);
    offer.items.push_back(
        {entry.key, entry.path, tensor.dtype(), tensor.shape(), piece.box, frame.size()});
    offer.sources.push_back({&tensor, piece.local, {}});
  }
}

/// @param dict  must outlive the offer.
[[nodiscard]] inline SaveOffer make_offer(StateDict const& dict) {
  SaveOffer offer;
  if (auto current = up_to_date(dict)) {
    offer.dict = std::make_shared<StateDict const>(std::move(*current));
  }
  for (StateEntry const& entry : offer.dict != nullptr ? *offer.dict : dict) {
    if (entry.is_tensor()) {
      offer_tensor(entry, offer);
    } else {
      format::Bytes archive = format::write_bytes_item(entry.plain());
      offer.items.push_back({entry.key, entry.path, std::nullopt, {}, {}, archive.size()});
      offer.sources.push_back({nullptr, {}, std::move(archive)});
    }
  }
  return offer;
}

/// The elements of a box of a local tensor, row-major, in host memory.
/// @param local  the box's place in the local tensor.
[[nodiscard]] inline std::vector<std::byte> box_elements(AnyTensor const& tensor,
                                                         Shape const& local,
                                                         Shape const& extent) {
  std::size_t const bytes = size_of(tensor.dtype());
  std::vector<std::byte> elements(static_cast<std::size_t>(volume(extent)) * bytes);
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
