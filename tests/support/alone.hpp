// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <shardmesh/comm/communicator.hpp>

namespace test {

/// One rank, and no more than `Communicator` asks.
struct Alone {
  static constexpr bool shared_address_space = true;  // but it has no copy_phase
  template <class Space>
  static constexpr bool moves = false;
  explicit operator bool() const { return true; }
  int rank() const { return 0; }
  int size() const { return 1; }
  std::vector<int> world_ranks() const { return {0}; }
  Alone split(int, int, shardmesh::Call const& = "split") const { return {}; }
  void barrier(shardmesh::Call const& = "barrier") const {}
  std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine,
                                                 shardmesh::Call const& = "all_gather") const {
    return {{mine.begin(), mine.end()}};
  }
};

}  // namespace test
