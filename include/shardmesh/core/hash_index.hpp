// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Finds entries of a vector by the hash of their keys. It holds positions alone, no keys and no
/// values, so that one class serves for all types of entries: a hash map of each type would be
/// compiled in every user's translation unit. Open addressing with linear probing; at least half of
/// the places are free.
class HashIndex {
 public:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  [[nodiscard]] static std::size_t hash_of(std::string_view text) noexcept {
    return std::hash<std::string_view>{}(text);
  }
  [[nodiscard]] static std::size_t hash_of_address(void const* address) noexcept {
    return hash_of(std::string_view(reinterpret_cast<char const*>(&address), sizeof(address)));
  }

  /// The first position that was added with this hash and for which `is_same(position)` holds;
  /// `none` if there is none.
  template <class IsSame>
  [[nodiscard]] std::size_t find(std::size_t hash, IsSame is_same) const {
    if (positions_.empty()) {
      return none;
    }
    std::size_t place = first_place(hash);
    while (positions_[place] != none && !(hashes_[place] == hash && is_same(positions_[place]))) {
      place = next_place(place);
    }
    return positions_[place];
  }

  /// After this one `add` needs no memory: call it before the entry goes into its vector.
  void make_room() {
    if (2 * (count_ + 1) > positions_.size()) {
      grow();
    }
  }

  /// @param position of an entry in the vector; any but `none`.
  /// @pre `make_room()` was called since the last one.
  void add(std::size_t hash, std::size_t position) noexcept {
    put(hash, position);
    ++count_;
  }

 private:
  [[nodiscard]] std::size_t first_place(std::size_t hash) const noexcept {
    return hash & (positions_.size() - 1);  // the number of places is a power of two
  }
  [[nodiscard]] std::size_t next_place(std::size_t place) const noexcept {
    return first_place(place + 1);
  }

  void put(std::size_t hash, std::size_t position) noexcept {
    std::size_t place = first_place(hash);
    while (positions_[place] != none) {
      place = next_place(place);
    }
    hashes_[place] = hash;
    positions_[place] = position;
  }

  void grow() {
    HashIndex larger;
    std::size_t const places = positions_.empty() ? 16 : 2 * positions_.size();
    larger.hashes_.resize(places);
    larger.positions_.resize(places, none);
    // From behind a free place once round: those with equal hashes keep their order.
    std::size_t start = 0;
    while (start < positions_.size() && positions_[start] != none) {
      ++start;
    }
    for (std::size_t i = 0; i < positions_.size(); ++i) {
      std::size_t const place = first_place(start + i);
      if (positions_[place] != none) {
        larger.put(hashes_[place], positions_[place]);
      }
    }
    hashes_.swap(larger.hashes_);
    positions_.swap(larger.positions_);
  }

  std::vector<std::size_t> hashes_;
  std::vector<std::size_t> positions_;  // `none`: the place is free
  std::size_t count_ = 0;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
