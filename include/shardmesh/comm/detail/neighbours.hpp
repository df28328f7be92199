// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/host.hpp>
#include <shardmesh/core/counters.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Where the ranks of a group are, for counting what they are sent.
class Neighbours {
 public:
  Neighbours() = default;  ///< all in this process

  /// @param operation  a literal, for whom the ranks meet.
  /// @collective over `comm` unless its ranks are threads.
  template <Communicator Comm>
  Neighbours(Comm const& comm, char const* operation) {
    if constexpr (!Comm::shared_address_space) {
      hosts_ = all_gather_value(comm, host_id(), operation);
    }
  }

  /// Counts elements that were sent to another rank.
  void count_sent(int peer, std::size_t bytes) const noexcept {
    if (hosts_.empty()) {
      counts().process_bytes.add(bytes);
    } else {
      v0::detail::count_sent(hosts_[static_cast<std::size_t>(peer)], bytes);
    }
  }

 private:
  std::vector<std::uint64_t> hosts_;  // by rank
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
