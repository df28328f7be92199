// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include <shardmesh/core/hash_index.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Values by the address of an object.
template <class T>
class AddressMap {
 public:
  /// Keeps the value that is there already, if there is one.
  void add(void const* address, T value) {
    if (find(address) == nullptr) {
      index_.make_room();
      entries_.emplace_back(address, std::move(value));
      index_.add(HashIndex::hash_of_address(address), entries_.size() - 1);
    }
  }
  /// nullptr if there is none.
  [[nodiscard]] T const* find(void const* address) const {
    std::size_t const at =
        index_.find(HashIndex::hash_of_address(address),
                    [&](std::size_t position) { return entries_[position].first == address; });
    return at == HashIndex::none ? nullptr : &entries_[at].second;
  }

 private:
  std::vector<std::pair<void const*, T>> entries_;
  HashIndex index_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
