// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/detail/greeting.hpp>
#include <shardmesh/comm/detail/offers.hpp>
#include <shardmesh/comm/detail/socket_group.hpp>
#include <shardmesh/comm/limits.hpp>

namespace shardmesh {
inline namespace v0 {

/// A group of processes that talk over TCP. The control channel of NCCL processes, and an engine of
/// its own for tensors in host memory where nothing faster is there: all data pass rank 0.
class SocketCommunicator {
 public:
  static constexpr bool shared_address_space = false;
  template <class Space>
  static constexpr bool moves = Space::host_accessible;

  SocketCommunicator() = default;

  /// Rank 0 listens on `port` of its host, `address`; the others connect.
  /// @param limits  how long ranks wait for each other; for all of them to come, `limits.call`.
  /// @throws TimeoutError naming the ranks that did not come.
  /// @collective over all `size` ranks.
  SocketCommunicator(std::string const& address, int port, int rank, int size, Limits limits) {
    std::vector<int> world(static_cast<std::size_t>(size));
    std::iota(world.begin(), world.end(), 0);
    detail::Socket const listener = rank == 0 ? detail::Socket::listen(port) : detail::Socket();
    meet(listener, address, port, rank, std::move(world), limits,
         std::make_shared<detail::Activity>());
  }

  [[nodiscard]] explicit operator bool() const noexcept { return group_ != nullptr; }
  [[nodiscard]] int rank() const noexcept { return group_ ? group_->rank() : 0; }
  [[nodiscard]] int size() const noexcept { return group_ ? group_->size() : 0; }
  [[nodiscard]] std::vector<int> world_ranks() const { return group_->world_ranks(); }
  [[nodiscard]] std::chrono::milliseconds timeout() const { return limits().call; }
  [[nodiscard]] Limits const& limits() const { return group_->star().limits(); }
  /// What this rank does between its calls; see `Working`.
  [[nodiscard]] std::shared_ptr<detail::Activity> const& activity() const {
    return group_->star().activity();
  }

  void barrier(Call const& call = "barrier") const { static_cast<void>(all_gather({}, call)); }

  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine, Call const& call = "all_gather") const {
    return group_->all_gather(mine, call);
  }

  [[nodiscard]] SocketCommunicator split(int color, int key, Call const& call = "split") const {
    struct Wish {
      int color;
      int key;
    };
    struct Door {
      char address[64];
      int port;
    };
    auto const wishes = all_gather_value(*this, Wish{color, key}, call);
    std::vector<int> members;
    for (int rank = 0; rank < size(); ++rank) {
      if (color >= 0 && wishes[static_cast<std::size_t>(rank)].color == color) {
        members.push_back(rank);
      }
    }
    std::sort(members.begin(), members.end(), [&wishes](int a, int b) {
      return std::pair(wishes[static_cast<std::size_t>(a)].key, a) <
             std::pair(wishes[static_cast<std::size_t>(b)].key, b);
    });
    detail::Socket listener;
    Door door{};
    if (!members.empty() && members.front() == rank()) {
      listener = detail::Socket::listen(0);
      std::string const address = group_->star().local_address();
      std::memcpy(door.address, address.data(), std::min(address.size(), sizeof(door.address) - 1));
      door.port = listener.port();
    }
    auto const doors = all_gather_value(*this, door, call);
    if (members.empty()) {
      return {};
    }
    Door const& leader = doors[static_cast<std::size_t>(members.front())];
    std::vector<int> world;
    for (int member : members) {
      world.push_back(world_ranks()[static_cast<std::size_t>(member)]);
    }
    auto const at = std::find(members.begin(), members.end(), rank()) - members.begin();
    SocketCommunicator result;
    result.meet(listener, leader.address, leader.port, static_cast<int>(at), std::move(world),
                limits(), activity());
    return result;
  }

  /// Messages between pairs of ranks, through rank 0.
  /// @throws MismatchError on every rank, before anything is written, if a message of any rank has no
  ///         counterpart of its size.
  template <class Space>
  void exchange(std::span<Message const> sends,
                std::span<Message> receives,
                typename Space::Stream = {},
                Call const& call = "exchange") const {
    std::vector<std::byte> packed = detail::pack_offer(sends, receives);
    for (Message const& one : sends) {
      auto const* raw = static_cast<std::byte const*>(one.data);
      packed.insert(packed.end(), raw, raw + one.bytes);
    }
    detail::Offers const offers(all_gather(packed, call), world_ranks());
    auto const matches = offers.match(rank());
    for (std::size_t i = 0; i < receives.size(); ++i) {
      int const peer = receives[i].peer;
      std::byte const* at = offers.data_of(peer);
      for (std::size_t before = 0; before < matches[i]; ++before) {
        at += offers.message(peer, before).bytes;
      }
      std::copy_n(at, receives[i].bytes, static_cast<std::byte*>(receives[i].data));
    }
  }

  /// Tells the other ranks why this one ends.
  void report_failure(std::string const& what) const noexcept {
    group_->star().report_failure(what);
  }

 private:
  void meet(detail::Socket const& listener,
            std::string const& address,
            int port,
            int rank,
            std::vector<int> world,
            Limits limits,
            std::shared_ptr<detail::Activity> activity) {
    detail::Rendezvous door(world, limits.call);
    std::vector<detail::Link> links =
        rank == 0 ? door.accept_all(listener) : door.connect(address, port, rank);
    group_ = std::make_shared<detail::SocketGroup>(std::move(links), rank, std::move(world), limits,
                                                   std::move(activity));
  }

  std::shared_ptr<detail::SocketGroup> group_;
};

}  // namespace v0
}  // namespace shardmesh
