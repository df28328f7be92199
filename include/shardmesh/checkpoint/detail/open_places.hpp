// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/detail/stage.hpp>
#include <shardmesh/checkpoint/load_plan.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Where ranks that share an address space collect what they load, so that whoever reads it can put it there.
class OpenPlaces {
 public:
  /// This rank's places, for `take`.
  /// @param staged_of  finds the staged tensor of a key.
  template <class StagedOf>
  [[nodiscard]] static std::string pack(LoadWishes const& wishes, StagedOf const& staged_of) {
    Packer out;
    bool open = true;
    for (LoadWishes::Tensor const& wish : wishes.tensors) {
      open = open && staged_of(wish.key).takes_as_stored();
    }
    out.number(open ? 1 : 0);
    for (LoadWishes::Tensor const& wish : wishes.tensors) {
      StagedTensor const& staged = staged_of(wish.key);
      for (Piece const& piece : staged.pieces()) {
        StagedPlace const place = staged.place_of(piece);
        out.number(reinterpret_cast<std::uintptr_t>(place.first));
        out.shape(place.strides);
      }
    }
    return std::move(out).finish();
  }

  /// @param packed  by rank.
  /// @param wishes  by rank; must outlive the object.
  /// @returns whether every rank takes all elements as they are stored; the same on all ranks.
  [[nodiscard]] bool take(std::vector<std::string> const& packed,
                          std::vector<LoadWishes> const& wishes) {
    wishes_ = &wishes;
    places_.resize(packed.size());
    bool open = true;
    for (std::size_t rank = 0; rank < packed.size(); ++rank) {
      Unpacker in(packed[rank]);
      open = in.number() == 1 && open;
      for (LoadWishes::Tensor const& wish : wishes[rank].tensors) {
        std::vector<StagedPlace>& places = places_[rank].emplace_back();
        for (Box const& box : wish.boxes) {
          std::uint64_t const address = in.number();
          std::byte* first = nullptr;
          static_assert(sizeof(first) == sizeof(address));
          std::memcpy(static_cast<void*>(&first), &address, sizeof(first));
          places.push_back({first, box, in.shape()});
        }
      }
    }
    return open;
  }

  /// @pre the rank wants the key.
  [[nodiscard]] std::vector<StagedPlace> const& of(int rank, std::size_t key) const {
    auto const number = static_cast<std::size_t>(rank);
    auto const& wanted = (*wishes_)[number].tensors;
    auto const wish = std::lower_bound(
        wanted.begin(), wanted.end(), key,
        [](LoadWishes::Tensor const& one, std::size_t wanted_key) { return one.key < wanted_key; });
    return places_[number][static_cast<std::size_t>(wish - wanted.begin())];
  }

 private:
  std::vector<LoadWishes> const* wishes_ = nullptr;
  std::vector<std::vector<std::vector<StagedPlace>>> places_;  // by rank and wish
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
