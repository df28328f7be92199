// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/hash_index.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Keys, each once, in the order in which they were added first.
class KeyList {
 public:
  /// @returns false if the key was there already.
  bool add(std::string const& key) {
    std::size_t const hash = HashIndex::hash_of(key);
    if (find(key, hash) != HashIndex::none) {
      return false;
    }
    index_.make_room();
    keys_.push_back(key);
    index_.add(hash, keys_.size() - 1);
    return true;
  }
  /// The position of a key in `keys()`; `HashIndex::none` if it is not there.
  [[nodiscard]] std::size_t find(std::string const& key) const {
    return find(key, HashIndex::hash_of(key));
  }
  [[nodiscard]] bool contains(std::string const& key) const { return find(key) != HashIndex::none; }
  [[nodiscard]] std::vector<std::string> const& keys() const noexcept { return keys_; }

 private:
  [[nodiscard]] std::size_t find(std::string const& key, std::size_t hash) const {
    return index_.find(hash, [&](std::size_t position) { return keys_[position] == key; });
  }

  std::vector<std::string> keys_;
  HashIndex index_;
};

/// Values by key.
template <class T>
class KeyMap {
 public:
  /// Keeps the value that is there already, if there is one.
  /// @returns the value under the key.
  T const& add(std::string const& key, T value) {
    if (T const* const earlier = find(key)) {
      return *earlier;
    }
    values_.push_back(std::move(value));
    try {
      keys_.add(key);
    } catch (...) {
      values_.pop_back();
      throw;
    }
    return values_.back();
  }
  /// nullptr if there is no such key.
  [[nodiscard]] T const* find(std::string const& key) const {
    std::size_t const at = keys_.find(key);
    return at < values_.size() ? &values_[at] : nullptr;
  }
  /// @throws KeyError if there is no such key.
  [[nodiscard]] T const& at(std::string const& key) const {
    if (T const* const value = find(key)) {
      return *value;
    }
    throw KeyError("shardmesh: there is no \"" + key + "\" on this rank");
  }
  [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
  /// In the order in which they were added.
  [[nodiscard]] std::vector<std::string> const& keys() const noexcept { return keys_.keys(); }

 private:
  KeyList keys_;
  std::vector<T> values_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
