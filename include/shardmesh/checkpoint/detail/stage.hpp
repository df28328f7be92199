// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/nearest.hpp>
#include <shardmesh/memory/convert.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/host_block.hpp>
#include <shardmesh/memory/host_buckets.hpp>
#include <shardmesh/state/number.hpp>
#include <shardmesh/state/policy.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Throws KeyError for a key that a checkpoint has not, with the nearest one that it has, and the files
/// that it has lost.
/// @param why   more about it, or nothing.
/// @param more  other keys that it has not.
template <class C>
[[noreturn]] void throw_missing(std::string const& key,
                                C const& catalog,
                                std::vector<std::string> const& keys,
                                std::string const& why = "",
                                std::vector<std::string> const& more = {}) {
  std::string lost;
  if constexpr (requires { catalog.lost_files(); }) {
    for (auto const& [name, what] : catalog.lost_files()) {
      lost += ". It may be in a file that is not there: " + what;
    }
  }
  std::string const near = nearest(key, keys);
  throw KeyError(
      "shardmesh::load: " + std::string(catalog.describe()) + " has no \"" + key + "\"" +
      (more.empty() ? "" : concat(" and no ", key_list(more))) + (why.empty() ? "" : ": " + why) +
      (near.empty()
           ? ""
           : "; the nearest of its " + std::to_string(keys.size()) + " keys is \"" + near + "\"") +
      (lost.empty() ? ". Load a state dict with the names that were saved" : lost));
}

/// Where the elements of a box are collected.
struct StagedPlace {
  std::byte* first = nullptr;
  Box box;
  Shape strides;  ///< bytes per step of each dimension
};

/// What is to replace the local part of a tensor, collected in host memory: nothing is overwritten
/// before everything has been read.
class StagedTensor {
 public:
  /// @param where   the checkpoint and the key, for messages.
  /// @param policy  of a 0-d tensor of another dtype: a number that both types have is none.
  /// @param memory  of which the elements are collected in a piece.
  StagedTensor(AnyTensor const& tensor,
               DType stored,
               std::string where,
               DTypePolicy policy,
               HostBuckets& memory)
      : tensor_(tensor),
        stored_(stored),
        where_(std::move(where)),
        policy_(policy),
        pieces_(tensor.pieces()),
        memory_(memory.take(tensor.bytes())),
        local_(memory_.get(), tensor.bytes()) {}

  [[nodiscard]] std::vector<Piece> const& pieces() const noexcept { return pieces_; }
  [[nodiscard]] std::vector<Box> boxes() const {
    std::vector<Box> result;
    for (Piece const& piece : pieces_) {
      result.push_back(piece.box);
    }
    return result;
  }

  /// Can elements be put into their places as they are stored?
  [[nodiscard]] bool takes_as_stored() const noexcept { return stored_ == tensor_.dtype(); }
  /// Where the elements of a piece are collected.
  [[nodiscard]] StagedPlace place_of(Piece const& piece) const {
    std::size_t const bytes = size_of(tensor_.dtype());
    return {local_.data() + byte_offset({piece.local, tensor_.local_shape()}, bytes), piece.box,
            byte_strides(tensor_.local_shape(), bytes)};
  }

  /// Takes the elements `common` of a piece.
  /// @param from  the first of them, of the stored type; `strides` in bytes.
  /// @throws InvalidArgument for a number that does not fit the tensor's type.
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
    if (tensor_.shape().empty()) {
      if (auto const number = number_of(stored_, from)) {
        put_number(*number);
      } else {
        refuse("holds a number of " + std::string(to_string(stored_)) + " that is too large for " +
               type_of_target());
      }
      return;
    }
    auto const count = static_cast<std::size_t>(common.volume());
    HostBlock const packed(count * size_of(stored_));
    HostBlock const converted(count * bytes);
    HostMemory::copy({from, packed.data(), common.extent, strides,
                      byte_strides(common.extent, size_of(stored_)), size_of(stored_)});
    try {
      convert_elements(stored_, packed.data(), tensor_.dtype(), converted.data(), count);
    } catch (InvalidArgument const& error) {
      refuse("does not fit " + type_of_target() + ": " + error.what());
    }
    HostMemory::copy({converted.data(), target, common.extent, byte_strides(common.extent, bytes),
                      target_strides, bytes});
  }

  /// Takes the one element of a 0-d tensor.
  /// @returns false if it was rounded.
  /// @throws InvalidArgument for what does not fit the tensor's type, or only rounded and the policy
  ///         is `error`.
  bool put_number(Value const& number) {
    auto const element = element_of_number(number, tensor_.dtype());
    if (!element || (!element->exact && policy_ == DTypePolicy::error)) {
      refuse("is " + to_string(number) + ", which " + type_of_target() +
             (element ? " holds only rounded; load with DTypePolicy::cast to round it"
                      : " cannot hold"));
    }
    if (!local_.empty()) {
      std::memcpy(local_.data(), element->bytes.data(), local_.size());
    }
    return element->exact;
  }

  /// The elements that were placed.
  [[nodiscard]] std::span<std::byte const> local() const noexcept { return local_; }

  /// Overwrites the tensor.
  void apply() const { tensor_.assign(local_); }

 private:
  [[nodiscard]] std::string type_of_target() const {
    return "a tensor of " + std::string(to_string(tensor_.dtype()));
  }
  [[noreturn]] void refuse(std::string const& what) const {
    throw InvalidArgument("shardmesh::load: " + where_ + " " + what);
  }

  AnyTensor tensor_;
  DType stored_;
  std::string where_;
  DTypePolicy policy_;
  std::vector<Piece> pieces_;
  std::shared_ptr<std::byte> memory_;
  std::span<std::byte> local_;
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
                                        CheckpointReport& report,
                                        HostBuckets& memory) {
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
    bool const is_number = stored->shape.empty() && has_numbers(stored->dtype) &&
                           has_numbers(tensor.dtype());  // the number itself decides
    if (!is_number && (policy == DTypePolicy::error || !converts)) {
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
  StagedTensor staged(tensor, stored->dtype, place, policy, memory);
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

/// What is to replace an entry of a state dict; neither: it is left as it is.
struct Staged {
  std::optional<StagedTensor> tensor;
  std::optional<Value> value;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
