// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/detail/greeting.hpp>
#include <shardmesh/comm/detail/link.hpp>
#include <shardmesh/comm/detail/socket.hpp>
#include <shardmesh/comm/job_secret.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The ranks of a group meet: rank 0 listens, the others connect. All who connect are listened to at the
/// same time, and strangers, silent ones as well, take nothing but a place in a short list.
class Rendezvous {
 public:
  /// @param group  what the ranks have agreed to call it, so that groups do not mix.
  Rendezvous(std::vector<int> const& world,
             std::uint64_t group,
             JobSecret const& secret,
             std::chrono::milliseconds timeout)
      : world_(world),
        group_(group),
        secret_(secret),
        timeout_(timeout),
        deadline_(std::chrono::steady_clock::now() + timeout) {
    JobSecret::fill_random(group_nonce_);
  }

  /// Rank 0's part.
  /// @throws TimeoutError naming the ranks that did not come.
  [[nodiscard]] std::vector<Link> accept_all(Socket const& listener) {
    links_.resize(world_.size());
    links_[0] = Link(Socket(), {{}, {}, Handshake::payload_key(secret_, group_nonce_)});
    missing_ = world_.size() - 1;
    while (missing_ > 0) {
      wait_for_traffic(listener);
      if (std::chrono::steady_clock::now() > deadline_) {
        throw TimeoutError(concat("shardmesh: rank ", closed_ranks(), " did not connect within ",
                                  std::to_string(timeout_.count()), " ms; start all ",
                                  std::to_string(world_.size()), " ranks", broken_off_));
      }
      errno = 0;
      for (Socket socket = listener.accept(); socket.is_open(); socket = listener.accept()) {
        guests_.push_back({std::move(socket), Handshake(secret_), {}, {}, 0, false});
        if (guests_.size() > most_guests + missing_) {
          guests_.pop_front();
        }
        if (guests_.size() > most_guests) {
          break;  // look at those that are there first
        }
      }
      if ((errno == EMFILE || errno == ENFILE) && !guests_.empty()) {
        guests_.pop_front();  // or no rank could come in
      }
      for (auto guest = guests_.begin(); guest != guests_.end();) {
        guest = listen_to(*guest) ? std::next(guest) : guests_.erase(guest);
      }
    }
    return std::move(links_);
  }

  /// The other ranks' part.
  /// @throws RankFailed, TimeoutError; CommError if rank 0 does not know the job's secret.
  [[nodiscard]] std::vector<Link> connect(std::string const& address, int port, int rank) const {
    Socket socket = Socket::connect(address, port, deadline_);
    std::string const who = concat("shardmesh: rank ", std::to_string(world_[0]));
    Handshake handshake(secret_);
    Hello hello;
    hello.rank = static_cast<std::uint32_t>(rank);
    hello.size = static_cast<std::uint32_t>(world_.size());
    hello.group = group_;
    JobSecret::fill_random(hello.nonce);
    try {
      socket.send_all(std::as_bytes(std::span(&hello, 1)), deadline_);
      Challenge challenge;
      socket.receive_all(std::as_writable_bytes(std::span(&challenge, 1)), deadline_);
      handshake.agree(hello, challenge);
      if (challenge.code != handshake.code_of_rank_0()) {
        throw CommError(concat(who, " at ", address, ":", std::to_string(port),
                               " does not know this job's secret; SHARDMESH_JOB_SECRET must be the "
                               "same on all ranks, and the port be this job's"));
      }
      Proof const proof{handshake.code_of_other()};
      socket.send_all(std::as_bytes(std::span(&proof, 1)), deadline_);
    } catch (ConnectionClosed const&) {
      throw RankFailed(world_[0],
                       concat(who, " has ended, or ", address, ":", std::to_string(port),
                              " is no place where it waits for rank ", std::to_string(rank), " of ",
                              std::to_string(world_.size())));
    } catch (DeadlinePassed const&) {
      throw TimeoutError(
          concat(who, " did not answer within ", std::to_string(timeout_.count()), " ms"));
    }
    std::vector<Link> links;
    links.emplace_back(std::move(socket), handshake.keys(false));
    return links;
  }

 private:
  static constexpr std::size_t most_guests = 128;

  /// Somebody who has connected.
  struct Guest {
    Socket socket;
    Handshake handshake;
    Hello hello;
    Proof proof;
    std::size_t filled = 0;   // bytes of what is awaited
    bool challenged = false;  // the proof is awaited, not the hello
  };

  void wait_for_traffic(Socket const& listener) const {
    std::vector<pollfd> entries{{listener.descriptor(), POLLIN, 0}};
    for (Guest const& guest : guests_) {
      entries.push_back({guest.socket.descriptor(), POLLIN, 0});
    }
    ::poll(entries.data(), entries.size(), 20);
  }

  /// @returns whether the guest stays one: not if it has become a rank, or will be none.
  [[nodiscard]] bool listen_to(Guest& guest) {
    if (!guest.challenged) {
      Reading const read = read_into(guest, std::as_writable_bytes(std::span(&guest.hello, 1)));
      if (read != Reading::complete) {
        return read == Reading::partial;
      }
      Hello const expected;
      if (guest.hello.magic != expected.magic || guest.hello.version != expected.version ||
          guest.hello.size != world_.size() || guest.hello.group != group_ ||
          guest.hello.rank == 0 || guest.hello.rank >= world_.size()) {
        return false;
      }
      return challenge(guest);
    }
    Reading const read = read_into(guest, std::as_writable_bytes(std::span(&guest.proof, 1)));
    if (read == Reading::partial) {
      return true;
    }
    if (read == Reading::ended || guest.proof.code != guest.handshake.code_of_other()) {
      broken_off_ =
          concat("; somebody came as rank ", std::to_string(world_[guest.hello.rank]),
                 " without the job's secret: SHARDMESH_JOB_SECRET must be the same on all "
                 "ranks");
    } else if (!links_[guest.hello.rank].is_open()) {
      links_[guest.hello.rank] = Link(std::move(guest.socket), guest.handshake.keys(true));
      --missing_;
    }
    return false;
  }

  /// @returns whether the answer could be sent: it fits into what every connection buffers.
  [[nodiscard]] bool challenge(Guest& guest) const {
    Challenge answer;
    JobSecret::fill_random(answer.nonce);
    answer.group_nonce = group_nonce_;
    guest.handshake.agree(guest.hello, answer);
    answer.code = guest.handshake.code_of_rank_0();
    guest.challenged = true;
    guest.filled = 0;
    return ::send(guest.socket.descriptor(), &answer, sizeof(answer),
                  MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(sizeof(answer));
  }

  enum class Reading { partial, complete, ended };

  /// Not a byte beyond what is awaited: what follows are frames.
  [[nodiscard]] static Reading read_into(Guest& guest, std::span<std::byte> awaited) {
    auto const room = awaited.subspan(guest.filled);
    ssize_t const count = ::recv(guest.socket.descriptor(), room.data(), room.size(), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
      return Reading::partial;
    }
    if (count <= 0) {
      return Reading::ended;
    }
    guest.filled += static_cast<std::size_t>(count);
    return guest.filled == awaited.size() ? Reading::complete : Reading::partial;
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
  std::uint64_t group_;
  JobSecret const& secret_;
  std::chrono::milliseconds timeout_;
  Deadline deadline_;
  std::array<std::byte, 16> group_nonce_{};
  std::vector<Link> links_;
  std::size_t missing_ = 0;
  std::list<Guest> guests_;
  std::string broken_off_;  // for the error
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
