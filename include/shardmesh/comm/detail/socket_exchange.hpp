// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <shardmesh/comm/call.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/offers.hpp>
#include <shardmesh/comm/detail/shared_windows.hpp>
#include <shardmesh/comm/detail/socket_group.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Messages between pairs of ranks of a group that meets through sockets. All ranks learn of all messages, and find alike
/// what is wrong with them and which way each goes: a small one with the offer that tells of it, a big one
/// through memory that its two ranks share, and what is left through rank 0.
class SocketExchange {
 public:
  explicit SocketExchange(SocketGroup& group) : group_(group) {}

  /// @throws MismatchError on every rank, before anything is written, if a message of any rank has no
  ///         counterpart of its size.
  /// @collective over the group.
  void run(std::span<Message const> sends, std::span<Message> receives, Call const& call) {
    Sender mine(*this, sends, me());
    std::vector<std::byte> packed = pack_offer(sends, receives);
    append(packed, sends, mine, Way::offer);
    bool const opened = windows_.has_value();
    write(sends, mine, 0);
    Offers const offers(meet(packed, call), group_.world_ranks());
    std::vector<std::size_t> const matches = offers.match(group_.rank());
    if (!opened && want_windows(offers)) {
      windows_.emplace(group_, hosts(offers), call);
      mine = Sender(*this, sends, me());
    }

    std::vector<Sender> const senders = all_senders(offers);
    std::vector<Arrival> arrivals;
    for (std::size_t i = 0; i < receives.size(); ++i) {
      auto const peer = static_cast<std::size_t>(receives[i].peer);
      arrivals.push_back({peer, senders[peer].places[matches[i]], receives[i]});
      if (peer == me()) {
        arrivals.back().take(static_cast<std::byte const*>(sends[matches[i]].data));
      }
    }
    take(Way::offer, arrivals,
         [&offers](std::size_t rank) { return offers.data_of(static_cast<int>(rank)).data(); });
    pass_windows(sends, mine, senders, arrivals, opened, call);
    pass_rank_0(sends, mine, senders, arrivals, call);
    offers.count_sent_by(group_.rank());
  }

 private:
  /// How a message goes: to oneself; with the offer; through shared memory; through rank 0.
  enum class Way : std::uint8_t { own, offer, window, star };
  static constexpr std::size_t small = 4096;  // bytes of a message that goes with the offer

  struct Place {
    Way way = Way::own;
    /// The byte of what goes that way together; of what goes through a window, its number.
    std::size_t at = 0;
  };

  /// The messages that a rank sends. All ranks know it of all, from what they are told in the offers.
  struct Sender {
    Sender(SocketExchange const& exchange, std::span<Message const> sends, std::size_t rank) {
      std::vector<std::size_t> in_window;
      for (Message const& one : sends) {
        Way way = exchange.way_of(one, rank);
        if (way == Way::window && in_window.size() == most_in_window) {
          way = Way::star;
        }
        std::size_t& bytes = sums[static_cast<std::size_t>(way)];
        places.push_back({way, way == Way::window ? in_window.size() : bytes});
        bytes += one.bytes;
        if (way == Way::window) {
          in_window.push_back(one.bytes);
        }
      }
      rounds = WindowRounds(in_window, SharedWindows::half);
    }

    [[nodiscard]] std::size_t bytes_of(Way way) const {
      return sums[static_cast<std::size_t>(way)];
    }

    std::vector<Place> places;  // by message
    std::array<std::size_t, 4> sums{};
    WindowRounds rounds;
  };
  static constexpr std::size_t most_in_window = SharedWindows::half / WindowRounds::line / 2;

  /// A message to this rank.
  struct Arrival {
    std::size_t peer;
    Place place;
    Message to;

    void take(std::byte const* data) const { take(data, 0, to.bytes); }
    void take(std::byte const* data, std::size_t first, std::size_t bytes) const {
      std::copy_n(data, bytes, static_cast<std::byte*>(to.data) + first);
    }
  };

  [[nodiscard]] std::vector<Sender> all_senders(Offers const& offers) const {
    std::vector<Sender> senders;
    for (int rank = 0; rank < group_.size(); ++rank) {
      senders.emplace_back(*this, offers.sends(rank), static_cast<std::size_t>(rank));
      require_bytes(rank, offers.data_of(rank).size(), senders.back().bytes_of(Way::offer));
    }
    return senders;
  }

  /// What came one way.
  /// @param data  of a rank, all that it sent that way.
  template <class Data>
  static void take(Way way, std::vector<Arrival> const& arrivals, Data const& data) {
    for (Arrival const& one : arrivals) {
      if (one.place.way == way) {
        one.take(data(one.peer) + one.place.at);
      }
    }
  }

  /// What goes through shared memory, in as many rounds as the rank needs that sends most.
  /// @param written  whether ranks wrote their first round before they met last.
  void pass_windows(std::span<Message const> sends,
                    Sender const& mine,
                    std::vector<Sender> const& senders,
                    std::vector<Arrival> const& arrivals,
                    bool written,
                    Call const& call) {
    std::size_t rounds = 0;
    for (Sender const& one : senders) {
      rounds = std::max(rounds, one.rounds.count());
    }
    for (std::size_t round = 0; round < rounds; ++round) {
      if (round > 0 || !written) {
        write(sends, mine, round);
        static_cast<void>(meet({}, call));
      }
      for (Arrival const& one : arrivals) {
        if (one.place.way == Way::window) {
          WindowRounds::Part const part = senders[one.peer].rounds.part(one.place.at, round);
          one.take(windows_->last(one.peer) + part.at, part.first, part.bytes);
        }
      }
    }
  }

  /// What is left, to everybody; no meeting if nothing is.
  void pass_rank_0(std::span<Message const> sends,
                   Sender const& mine,
                   std::vector<Sender> const& senders,
                   std::vector<Arrival> const& arrivals,
                   Call const& call) {
    bool const any = std::any_of(senders.begin(), senders.end(),
                                 [](Sender const& one) { return one.bytes_of(Way::star) > 0; });
    if (!any) {
      return;
    }
    std::vector<std::byte> packed;
    append(packed, sends, mine, Way::star);
    auto const all = meet(packed, call);
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      require_bytes(static_cast<int>(rank), all[rank].size(), senders[rank].bytes_of(Way::star));
    }
    take(Way::star, arrivals, [&all](std::size_t rank) { return all[rank].data(); });
  }

  [[nodiscard]] std::size_t me() const { return static_cast<std::size_t>(group_.rank()); }

  [[nodiscard]] Way way_of(Message const& one, std::size_t sender) const {
    auto const peer = static_cast<std::size_t>(one.peer);
    if (peer == sender) {
      return Way::own;
    }
    if (one.bytes <= small) {
      return Way::offer;
    }
    return windows_ && windows_->reaches(sender, peer) ? Way::window : Way::star;
  }

  /// Ranks of other versions of the library may not bring what they say.
  void require_bytes(int rank, std::size_t brought, std::size_t said) const {
    if (brought != said) {
      throw MismatchError(
          concat("shardmesh::exchange: rank ",
                 std::to_string(group_.world_ranks()[static_cast<std::size_t>(rank)]), " brings ",
                 std::to_string(brought), " bytes where its messages have ", std::to_string(said),
                 "; every rank must run the same version of the library"));
    }
  }

  /// The others see what was written to the window before.
  [[nodiscard]] std::vector<std::vector<std::byte>> meet(std::span<std::byte const> bytes,
                                                         Call const& call) {
    SharedWindows::publish();
    auto all = group_.all_gather(bytes, call);
    if (windows_) {
      windows_->turn();
    }
    return all;
  }

  void write(std::span<Message const> sends, Sender const& mine, std::size_t round) const {
    for (std::size_t i = 0; i < sends.size(); ++i) {
      if (mine.places[i].way == Way::window) {
        WindowRounds::Part const part = mine.rounds.part(mine.places[i].at, round);
        std::copy_n(static_cast<std::byte const*>(sends[i].data) + part.first, part.bytes,
                    windows_->next() + part.at);
      }
    }
  }

  static void append(std::vector<std::byte>& packed,
                     std::span<Message const> sends,
                     Sender const& mine,
                     Way way) {
    packed.reserve(packed.size() + mine.bytes_of(way));
    for (std::size_t i = 0; i < sends.size(); ++i) {
      if (mine.places[i].way == way) {
        auto const* const data = static_cast<std::byte const*>(sends[i].data);
        packed.insert(packed.end(), data, data + sends[i].bytes);
      }
    }
  }

  /// Is a message between two ranks of one host too big to go with an offer?
  [[nodiscard]] bool want_windows(Offers const& offers) const {
    for (int rank = 0; rank < group_.size(); ++rank) {
      for (Message const& one : offers.sends(rank)) {
        if (one.peer != rank && one.bytes > small && offers.host(one.peer) == offers.host(rank)) {
          return true;
        }
      }
    }
    return false;
  }

  [[nodiscard]] std::vector<std::uint64_t> hosts(Offers const& offers) const {
    std::vector<std::uint64_t> all;
    for (int rank = 0; rank < group_.size(); ++rank) {
      all.push_back(offers.host(rank));
    }
    return all;
  }

  SocketGroup& group_;
  std::optional<SharedWindows> windows_;  // none before a message is worth it
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
