// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::load: the ranks of a load pass on what they read; give the communicator an exchange<HostMemory>}}
#include <cstddef>
#include <span>
#include <vector>

#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/communicator.hpp>

namespace sm = shardmesh;

/// One that saves, but has no `exchange`.
struct Alone {
  static constexpr bool shared_address_space = false;
  template <class Space>
  static constexpr bool moves = false;
  explicit operator bool() const { return true; }
  int rank() const { return 0; }
  int size() const { return 1; }
  std::vector<int> world_ranks() const { return {0}; }
  Alone split(int, int, sm::Call const& = "split") const { return {}; }
  void barrier(sm::Call const& = "barrier") const {}
  std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine,
                                                 sm::Call const& = "all_gather") const {
    return {{mine.begin(), mine.end()}};
  }
};

void legal(sm::StateDict const& state) {
  sm::save(Alone(), "checkpoint", state);
}

#ifdef EXPECT_ERROR
void illegal(sm::StateDict& state) {
  sm::load(Alone(), "checkpoint", state);
}
#endif
