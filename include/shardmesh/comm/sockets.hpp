// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/detail/rendezvous.hpp>
#include <shardmesh/comm/detail/socket_exchange.hpp>
#include <shardmesh/comm/detail/socket_group.hpp>
#include <shardmesh/comm/job_secret.hpp>
#include <shardmesh/comm/limits.hpp>

namespace shardmesh {
inline namespace v0 {

/// A group of processes that talk over TCP. The control channel of NCCL processes, and an engine of
/// its own for tensors in host memory: between ranks of one host in memory that they share (`SHARDMESH_SHARED_MEMORY=0`
/// for none), between hosts through rank 0.
class SocketCommunicator {
 public:
  static constexpr bool shared_address_space = false;
  template <class Space>
  static constexpr bool moves = Space::host_accessible;

  SocketCommunicator() = default;

  /// Rank 0 listens on `port` of its host, `address`; the others connect. All who do must know the job's
  /// secret: what SHARDMESH_JOB_SECRET says, or for a loopback address, on which rank 0 then listens
  /// alone, `JobSecret::of_this_user()`.
  /// @param limits  how long ranks wait for each other; for all of them to come, `limits.call`.
  /// @throws TimeoutError naming the ranks that did not come; InvalidArgument where there is no secret.
  /// @collective over all `size` ranks.
  SocketCommunicator(std::string const& address, int port, int rank, int size, Limits limits)
      : SocketCommunicator(address, port, rank, size, limits, secret_for(address, size)) {}
  /// With a secret from elsewhere, the same on all ranks.
  SocketCommunicator(std::string const& address,
                     int port,
                     int rank,
                     int size,
                     Limits limits,
                     JobSecret const& secret) {
    std::vector<int> world(static_cast<std::size_t>(size));
    std::iota(world.begin(), world.end(), 0);
    detail::Socket const listener =
        rank == 0 ? detail::Socket::listen(port, is_loopback(address) ? "127.0.0.1" : "0.0.0.0")
                  : detail::Socket();
    meet(listener, {address, port, 0}, rank, std::move(world), limits,
         std::make_shared<detail::Activity>(), secret);
  }

  [[nodiscard]] explicit operator bool() const noexcept { return group_ != nullptr; }
  [[nodiscard]] int rank() const noexcept { return group_ ? group_->rank() : 0; }
  [[nodiscard]] int size() const noexcept { return group_ ? group_->size() : 0; }
  [[nodiscard]] std::vector<int> world_ranks() const { return group("world_ranks").world_ranks(); }
  [[nodiscard]] std::chrono::milliseconds timeout() const { return limits().call; }
  [[nodiscard]] Limits const& limits() const { return group("limits").star().limits(); }
  /// What this rank does between its calls; see `Working`.
  [[nodiscard]] std::shared_ptr<detail::Activity> const& activity() const {
    return group("activity").star().activity();
  }

  void barrier(Call const& call = "barrier") const { static_cast<void>(all_gather({}, call)); }

  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine, Call const& call = "all_gather") const {
    return group(call.operation()).all_gather(mine, call);
  }

  [[nodiscard]] SocketCommunicator split(int color, int key, Call const& call = "split") const {
    struct Wish {
      int color;
      int key;
    };
    struct Sign {
      char address[64];
      int port;
      std::uint64_t group;
    };
    auto const wishes = all_gather_value(*this, Wish{color, key}, call);
    std::vector<int> members;
    for (int one = 0; one < size(); ++one) {
      if (color >= 0 && wishes[static_cast<std::size_t>(one)].color == color) {
        members.push_back(one);
      }
    }
    std::sort(members.begin(), members.end(), [&wishes](int a, int b) {
      return std::pair(wishes[static_cast<std::size_t>(a)].key, a) <
             std::pair(wishes[static_cast<std::size_t>(b)].key, b);
    });
    detail::Socket listener;
    Sign sign{};
    if (!members.empty() && members.front() == rank()) {
      std::string const address = group_->star().local_address();
      listener = detail::Socket::listen(0, address);
      std::memcpy(sign.address, address.data(), std::min(address.size(), sizeof(sign.address) - 1));
      sign.port = listener.port();
      JobSecret::fill_random(std::as_writable_bytes(std::span(&sign.group, 1)));
    }
    auto const signs = all_gather_value(*this, sign, call);
    if (members.empty()) {
      return {};
    }
    Sign const& leader = signs[static_cast<std::size_t>(members.front())];
    std::vector<int> world;
    for (int member : members) {
      world.push_back(world_ranks()[static_cast<std::size_t>(member)]);
    }
    auto const at = std::find(members.begin(), members.end(), rank()) - members.begin();
    SocketCommunicator result;
    result.meet(listener, {leader.address, leader.port, leader.group}, static_cast<int>(at),
                std::move(world), limits(), activity(), *secret_);
    return result;
  }

  /// Messages between pairs of ranks: through memory that they share where they run on one host, else through rank 0.
  /// @throws MismatchError on every rank, before anything is written, if a message of any rank has no
  ///         counterpart of its size.
  template <class Space>
  void exchange(std::span<Message const> sends,
                std::span<Message> receives,
                typename Space::Stream = {},
                Call const& call = "exchange") const {
    detail::require_group(group_ != nullptr, call.operation());
    exchange_->run(sends, receives, call);
  }

  /// Tells the other ranks why this one ends.
  void report_failure(std::string const& what) const noexcept {
    if (group_) {
      group_->star().report_failure(what);
    }
  }

 private:
  [[nodiscard]] detail::SocketGroup& group(char const* operation) const {
    detail::require_group(group_ != nullptr, operation);
    return *group_;
  }

  /// Where a group meets.
  struct Door {
    std::string address;
    int port;
    std::uint64_t group;
  };

  void meet(detail::Socket const& listener,
            Door const& door,
            int rank,
            std::vector<int> world,
            Limits limits,
            std::shared_ptr<detail::Activity> activity,
            JobSecret const& secret) {
    detail::Rendezvous rendezvous(world, door.group, secret, limits.call);
    std::vector<detail::Link> links = rank == 0 ? rendezvous.accept_all(listener)
                                                : rendezvous.connect(door.address, door.port, rank);
    secret_ = std::make_shared<JobSecret const>(secret);
    group_ = std::make_shared<detail::SocketGroup>(std::move(links), rank, std::move(world), limits,
                                                   std::move(activity));
    exchange_ = std::make_shared<detail::SocketExchange>(*group_);
  }

  [[nodiscard]] static bool is_loopback(std::string const& address) {
    return address == "localhost" || address.starts_with("127.");
  }

  [[nodiscard]] static JobSecret secret_for(std::string const& address, int size) {
    if (auto given = JobSecret::from_environment()) {
      return *std::move(given);
    }
    if (size == 1) {
      return JobSecret::random();
    }
    if (is_loopback(address)) {
      return JobSecret::of_this_user();
    }
    throw InvalidArgument(
        "shardmesh: ranks on several hosts need a secret that others do not know, since anybody "
        "can "
        "connect to them; set it on all ranks, before torchrun or srun (which pass it on) or with "
        "mpirun -x SHARDMESH_JOB_SECRET: export SHARDMESH_JOB_SECRET=$(openssl rand -hex 16)");
  }

  std::shared_ptr<JobSecret const> secret_;
  std::shared_ptr<detail::SocketGroup> group_;
  std::shared_ptr<detail::SocketExchange> exchange_;  // in that group
};

}  // namespace v0
}  // namespace shardmesh
