// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/call.hpp>
#include <shardmesh/comm/detail/socket.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A star of TCP connections between processes: rank 0 collects what ranks show each other and sends
/// everything to everybody. The control channel of processes: liveness by end of file, deadlines,
/// and the words of a rank that failed.
class SocketGroup {
 public:
  using Bytes = std::vector<std::byte>;

  /// Rank 0 listens, the others connect.
  /// @throws TimeoutError naming the ranks that did not come.
  SocketGroup(Socket listener,
              std::string const& address,
              int port,
              int rank,
              std::vector<int> world_ranks,
              std::chrono::milliseconds timeout)
      : rank_(rank), world_(std::move(world_ranks)), timeout_(timeout) {
    Deadline const deadline = std::chrono::steady_clock::now() + timeout_;
    if (rank_ == 0) {
      accept_all(listener, deadline);
    } else {
      peers_.resize(1);
      peers_[0] = Socket::connect(address, port, deadline);
      greet(deadline);
    }
  }

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return static_cast<int>(world_.size()); }
  [[nodiscard]] std::vector<int> const& world_ranks() const noexcept { return world_; }
  [[nodiscard]] std::chrono::milliseconds timeout() const noexcept { return timeout_; }

  /// An address of this process that the others reach.
  [[nodiscard]] std::string local_address() const {
    return peers_.empty() || !peers_.back().is_open() ? "127.0.0.1" : peers_.back().local_address();
  }

  /// Shows bytes to all ranks and returns everybody's.
  /// @throws RankFailed, TimeoutError; MismatchError on every rank if their calls differ
  [[nodiscard]] std::vector<Bytes> all_gather(std::span<std::byte const> mine, Call const& call) {
    Gathered gathered = gather(mine, call.fingerprint());
    if (std::size_t const other = first_other(gathered.calls); other > 0) {
      explain(call, other);
    }
    return std::move(gathered.bytes);
  }

  /// Tells rank 0, or from rank 0 everybody, why this rank ends. Best effort.
  void report_failure(std::string const& what) noexcept {
    try {
      Deadline const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
      std::string const who = "shardmesh: rank " + std::to_string(world_[0]) + " failed: ";
      send_failure(rank_, rank_ == 0 ? who + what : what, deadline);  // others: rank 0 says who
    } catch (...) {  // the others see the end of the connection instead
    }
  }

 private:
  static constexpr std::uint32_t magic = 0x534d6573;
  static constexpr std::uint64_t most_bytes = std::uint64_t{1} << 34;
  enum Kind : std::uint64_t { data, failure };

  /// What all ranks have sent, by rank.
  struct Gathered {
    std::vector<std::uint64_t> calls;  ///< fingerprints
    std::vector<Bytes> bytes;
  };
  struct Frame {
    std::uint64_t call = 0;
    Bytes bytes;
  };

  [[nodiscard]] Gathered gather(std::span<std::byte const> mine, std::uint64_t call) {
    Deadline const deadline = std::chrono::steady_clock::now() + timeout_;
    return rank_ == 0 ? gather_and_send(mine, call, deadline)
                      : send_and_receive(mine, call, deadline);
  }

  /// All ranks have seen that the call of rank `other` is not rank 0's: each says what it is in.
  [[noreturn]] void explain(Call const& call, std::size_t other) {
    std::string const mine = CallText(call).packed();
    Gathered const all = gather(std::as_bytes(std::span(mine)), 0);
    auto const text = [&all](std::size_t rank) {
      Bytes const& raw = all.bytes[rank];
      return CallText::unpack({reinterpret_cast<char const*>(raw.data()), raw.size()});
    };
    throw MismatchError(mismatch_text(world_[0], text(0), world_[other], text(other)));
  }

  /// Tells rank 0 who connects.
  void greet(Deadline deadline) const {
    std::uint32_t const hello[2] = {magic, static_cast<std::uint32_t>(rank_)};
    try {
      peers_[0].send_all(std::as_bytes(std::span(hello)), deadline);
    } catch (ConnectionClosed const&) {
      throw RankFailed(world_[0], "shardmesh: rank " + std::to_string(world_[0]) + " has ended");
    } catch (DeadlinePassed const&) {
      throw TimeoutError("shardmesh: rank " + std::to_string(world_[0]) +
                         " did not answer within " + std::to_string(timeout_.count()) + " ms");
    }
  }

  /// The rank that says hello; 0 if it is a stranger, who may say nothing at all.
  [[nodiscard]] std::size_t greeted_by(Socket const& socket, Deadline deadline) const {
    std::uint32_t hello[2] = {};
    Deadline const patience = std::chrono::steady_clock::now() + timeout_ / 4;
    try {
      socket.receive_all(std::as_writable_bytes(std::span(hello)), std::min(patience, deadline));
    } catch (ConnectionClosed const&) {
      return 0;
    } catch (DeadlinePassed const&) {
      return 0;
    }
    bool const legal = hello[0] == magic && hello[1] < world_.size() && !peers_[hello[1]].is_open();
    return legal ? hello[1] : 0;
  }

  void accept_all(Socket const& listener, Deadline deadline) {
    peers_.resize(world_.size());
    std::size_t missing = world_.size() - 1;
    try {
      while (missing > 0) {
        Socket socket = listener.accept(deadline);
        std::size_t const rank = greeted_by(socket, deadline);
        if (rank > 0) {
          peers_[rank] = std::move(socket);
          --missing;
        }
      }
    } catch (DeadlinePassed const&) {
      throw TimeoutError("shardmesh: rank " + closed_ranks() + " did not connect within " +
                         std::to_string(timeout_.count()) + " ms; start all " +
                         std::to_string(world_.size()) + " ranks");
    }
  }

  [[nodiscard]] std::string closed_ranks() const {
    std::string text;
    for (std::size_t i = 1; i < peers_.size(); ++i) {
      if (!peers_[i].is_open()) {
        text += concat(text.empty() ? "" : ", ", std::to_string(world_[i]));
      }
    }
    return text;
  }

  static void send_frame(Socket const& to,
                         Kind kind,
                         std::uint64_t number,
                         std::uint64_t call,
                         std::span<std::byte const> bytes,
                         Deadline deadline) {
    std::uint64_t const header[4] = {kind, number, bytes.size(), call};
    to.send_all(std::as_bytes(std::span(header)), deadline);
    to.send_all(bytes, deadline);
  }

  /// @throws RankFailed if the frame says so.
  [[nodiscard]] Frame receive_frame(Socket const& from, Deadline deadline, int peer) const {
    std::uint64_t header[4] = {};
    from.receive_all(std::as_writable_bytes(std::span(header)), deadline);
    if (header[2] > most_bytes || header[0] > failure) {
      throw CommError("shardmesh: rank " + std::to_string(world_[static_cast<std::size_t>(peer)]) +
                      " sent something that is no message of this program");
    }
    Bytes bytes(static_cast<std::size_t>(header[2]));
    from.receive_all(bytes, deadline);
    if (header[0] == failure) {
      std::string const what(reinterpret_cast<char const*>(bytes.data()), bytes.size());
      auto const failed = static_cast<std::size_t>(header[1]) % world_.size();
      throw RankFailed(world_[failed], what);
    }
    if (header[1] != sequence_) {
      throw MismatchError("shardmesh: rank " +
                          std::to_string(world_[static_cast<std::size_t>(peer)]) + " is in call " +
                          std::to_string(header[1]) + ", rank " +
                          std::to_string(world_[static_cast<std::size_t>(rank_)]) + " in call " +
                          std::to_string(sequence_) + "; every rank must make the same calls");
    }
    return {header[3], std::move(bytes)};
  }

  void send_failure(int failed, std::string const& what, Deadline deadline) const {
    std::span<char const> const text(what.data(), what.size());
    for (Socket const& peer : peers_) {
      if (peer.is_open()) {
        try {
          send_frame(peer, failure, static_cast<std::uint64_t>(failed), 0, std::as_bytes(text),
                     deadline);
        } catch (ConnectionClosed const&) {  // gone as well
        } catch (DeadlinePassed const&) {    // does not listen
        }
      }
    }
  }

  /// Tells the others, then throws.
  template <class E>
  [[noreturn]] void fail_all(int failed, E const& error) const {
    send_failure(failed, error.what(), std::chrono::steady_clock::now() + std::chrono::seconds(1));
    throw error;
  }

  [[nodiscard]] Gathered gather_and_send(std::span<std::byte const> mine,
                                         std::uint64_t call,
                                         Deadline deadline) {
    Gathered all{std::vector<std::uint64_t>(world_.size(), call),
                 std::vector<Bytes>(world_.size())};
    all.bytes[0].assign(mine.begin(), mine.end());
    for (std::size_t i = 1; i < world_.size(); ++i) {
      int const peer = static_cast<int>(i);
      std::string const who = concat("shardmesh: rank ", std::to_string(world_[i]));
      try {
        Frame frame = receive_frame(peers_[i], deadline, peer);
        all.calls[i] = frame.call;
        all.bytes[i] = std::move(frame.bytes);
      } catch (ConnectionClosed const&) {
        fail_all(peer, RankFailed(world_[i], who + " has ended"));
      } catch (RankFailed const& error) {
        fail_all(peer, RankFailed(world_[i], who + " failed: " + error.what()));
      } catch (DeadlinePassed const&) {
        fail_all(peer, TimeoutError(who + " did not arrive within " +
                                    std::to_string(timeout_.count()) + " ms"));
      } catch (MismatchError const& error) {
        fail_all(peer, error);
      }
    }
    Bytes packed;
    for (std::size_t i = 0; i < world_.size(); ++i) {
      Bytes const& one = all.bytes[i];
      std::uint64_t const head[2] = {all.calls[i], one.size()};
      auto const raw = std::as_bytes(std::span(head));
      packed.insert(packed.end(), raw.begin(), raw.end());
      packed.insert(packed.end(), one.begin(), one.end());
    }
    for (std::size_t i = 1; i < world_.size(); ++i) {
      try {
        send_frame(peers_[i], data, sequence_, call, packed, deadline);
      } catch (ConnectionClosed const&) {
        fail_all(
            static_cast<int>(i),
            RankFailed(world_[i], "shardmesh: rank " + std::to_string(world_[i]) + " has ended"));
      } catch (DeadlinePassed const&) {
        fail_all(static_cast<int>(i), TimeoutError("shardmesh: rank " + std::to_string(world_[i]) +
                                                   " did not take its data within " +
                                                   std::to_string(timeout_.count()) + " ms"));
      }
    }
    ++sequence_;
    return all;
  }

  /// Rank 0 may have said why it takes no more data.
  /// @throws RankFailed if it has.
  void hear_why(bool sent) const {
    try {
      if (!sent) {
        Deadline const deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
        static_cast<void>(receive_frame(peers_[0], deadline, 0));
      }
    } catch (ConnectionClosed const&) {  // it has not
    } catch (DeadlinePassed const&) {
    }
  }

  [[nodiscard]] Gathered send_and_receive(std::span<std::byte const> mine,
                                          std::uint64_t call,
                                          Deadline deadline) {
    Bytes packed;
    bool sent = false;
    try {
      send_frame(peers_[0], data, sequence_, call, mine, deadline);
      sent = true;
      // Rank 0 gives up first, so that its message names the rank that is missing.
      packed = receive_frame(peers_[0], deadline + std::chrono::seconds(2), 0).bytes;
    } catch (ConnectionClosed const&) {
      hear_why(sent);
      throw RankFailed(world_[0], "shardmesh: rank " + std::to_string(world_[0]) + " has ended");
    } catch (DeadlinePassed const&) {
      hear_why(sent);
      throw TimeoutError("shardmesh: rank " + std::to_string(world_[0]) +
                         " did not answer within " + std::to_string(timeout_.count()) + " ms");
    }
    ++sequence_;
    Gathered all;
    std::size_t at = 0;
    for (std::size_t i = 0; i < world_.size(); ++i) {
      std::uint64_t head[2] = {};
      if (packed.size() - at < sizeof(head)) {
        throw CommError("shardmesh: rank 0 sent a message that is too short");
      }
      std::memcpy(head, packed.data() + at, sizeof(head));
      at += sizeof(head);
      if (head[1] > packed.size() - at) {
        throw CommError("shardmesh: rank 0 sent a message that is too short");
      }
      auto const first = packed.begin() + static_cast<std::ptrdiff_t>(at);
      all.calls.push_back(head[0]);
      all.bytes.emplace_back(first, first + static_cast<std::ptrdiff_t>(head[1]));
      at += static_cast<std::size_t>(head[1]);
    }
    return all;
  }

  int rank_;
  std::vector<int> world_;
  std::chrono::milliseconds timeout_;
  std::vector<Socket> peers_;  // rank 0: by rank, its own closed; others: rank 0 alone
  std::uint64_t sequence_ = 0;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
