// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>

namespace shardmesh::inline v0::detail {

/// Keys, each once, in the order in which they were added first.
class KeyList {
 public:
  /// @returns false if the key was there already.
  bool add(std::string const& key) {
    bool const is_new = index_.emplace(key, keys_.size()).second;
    if (is_new) {
      keys_.push_back(key);
    }
    return is_new;
  }
  /// The place of a key in `keys()`; their number if it is not there.
  [[nodiscard]] std::size_t find(std::string const& key) const {
    auto const at = index_.find(key);
    return at == index_.end() ? keys_.size() : at->second;
  }
  [[nodiscard]] bool contains(std::string const& key) const { return find(key) < keys_.size(); }
  [[nodiscard]] std::vector<std::string> const& keys() const noexcept { return keys_; }

 private:
  std::vector<std::string> keys_;
  std::unordered_map<std::string, std::size_t> index_;
};

/// Values by key. A hash map of each type of value would be compiled in every user's translation
/// unit; so one type of hash map serves for all.
template <class T>
class KeyMap {
 public:
  /// Keeps the value that is there already, if there is one.
  /// @returns the value under the key.
  T const& add(std::string const& key, T value) {
    if (keys_.add(key)) {
      values_.push_back(std::move(value));
    }
    return values_[keys_.find(key)];
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

}  // namespace shardmesh::inline v0::detail
