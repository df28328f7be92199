// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

namespace shardmesh::inline v0::detail {

/// Keys, each once, in the order in which they were added first.
class KeyList {
 public:
  void add(std::string const& key) {
    if (index_.emplace(key, keys_.size()).second) {
      keys_.push_back(key);
    }
  }
  [[nodiscard]] bool contains(std::string const& key) const { return index_.count(key) > 0; }
  [[nodiscard]] std::vector<std::string> const& keys() const noexcept { return keys_; }

 private:
  std::vector<std::string> keys_;
  std::unordered_map<std::string, std::size_t> index_;
};

}  // namespace shardmesh::inline v0::detail
