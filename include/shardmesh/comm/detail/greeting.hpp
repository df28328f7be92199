// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <shardmesh/comm/detail/link.hpp>
#include <shardmesh/comm/detail/socket.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

inline constexpr std::uint32_t greeting_magic = 0x534d6573;

/// The ranks of a group meet: rank 0 listens, the others connect.
class Rendezvous {
 public:
  Rendezvous(std::vector<int> const& world, std::chrono::milliseconds timeout)
      : world_(world), timeout_(timeout), deadline_(std::chrono::steady_clock::now() + timeout) {}

  /// Rank 0's part.
  /// @throws TimeoutError naming the ranks that did not come.
  [[nodiscard]] std::vector<Link> accept_all(Socket const& listener) {
    links_.resize(world_.size());
    std::size_t missing = world_.size() - 1;
    try {
      while (missing > 0) {
        Socket socket = listener.accept(deadline_);
        std::size_t const rank = greeted_by(socket);
        if (rank > 0) {
          links_[rank] = Link(std::move(socket));
          --missing;
        }
      }
    } catch (DeadlinePassed const&) {
      throw TimeoutError("shardmesh: rank " + closed_ranks() + " did not connect within " +
                         std::to_string(timeout_.count()) + " ms; start all " +
                         std::to_string(world_.size()) + " ranks");
    }
    return std::move(links_);
  }

  /// The other ranks' part.
  [[nodiscard]] std::vector<Link> connect(std::string const& address, int port, int rank) const {
    Socket socket = Socket::connect(address, port, deadline_);
    std::uint32_t const hello[2] = {greeting_magic, static_cast<std::uint32_t>(rank)};
    try {
      socket.send_all(std::as_bytes(std::span(hello)), deadline_);
    } catch (ConnectionClosed const&) {
      throw RankFailed(world_[0], "shardmesh: rank " + std::to_string(world_[0]) + " has ended");
    } catch (DeadlinePassed const&) {
      throw TimeoutError("shardmesh: rank " + std::to_string(world_[0]) +
                         " did not answer within " + std::to_string(timeout_.count()) + " ms");
    }
    std::vector<Link> links;
    links.emplace_back(std::move(socket));
    return links;
  }

 private:
  /// The rank that says hello; 0 if it is a stranger, who may say nothing at all.
  [[nodiscard]] std::size_t greeted_by(Socket const& socket) const {
    std::uint32_t hello[2] = {};
    Deadline const patience = std::chrono::steady_clock::now() + timeout_ / 4;
    try {
      socket.receive_all(std::as_writable_bytes(std::span(hello)), std::min(patience, deadline_));
    } catch (ConnectionClosed const&) {
      return 0;
    } catch (DeadlinePassed const&) {
      return 0;
    }
    bool const legal =
        hello[0] == greeting_magic && hello[1] < world_.size() && !links_[hello[1]].is_open();
    return legal ? hello[1] : 0;
  }

  [[nodiscard]] std::string closed_ranks() const {
    std::string text;
    for (std::size_t i = 1; i < links_.size(); ++i) {
      if (!links_[i].is_open()) {
        text += concat(text.empty() ? "" : ", ", std::to_string(world_[i]));
      }
    }
    return text;
  }

  std::vector<int> const& world_;
  std::chrono::milliseconds timeout_;
  Deadline deadline_;
  std::vector<Link> links_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
