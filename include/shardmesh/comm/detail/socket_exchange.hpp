// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
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
  ///         counterpart of its size; MismatchError if a rank has failed within an earlier call, and called again.
  /// @collective over the group.
  void run(std::span<Message const> sends, std::span<Message> receives, Call const& call) {
    try {
      pass(sends, receives, call);
    } catch (...) {
      windows_.reset();  // the others may have got further: see `Mark`
      throw;
    }
  }

 private:
  /// How a message goes: to oneself; with the offer; through shared memory; through rank 0.
  enum class Way : std::uint8_t { own, offer, window, star };
  static constexpr std::size_t small = 4096;  // bytes of a message that goes with the offer

  /// What a rank is at, at the end of what it brings to a meeting: ranks that are not at the same do not take each other's
  /// bytes for what they are not.
  struct Mark {
    std::uint32_t step = 0;
    std::uint32_t has_windows = 0;
  };
  /// Steps of an exchange. `at_round`: that and more, one for each round.
  enum Step : std::uint32_t { at_offer = 1, at_signs, at_opened, at_star, at_round };

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

  void pass(std::span<Message const> sends, std::span<Message> receives, Call const& call) {
    Sender mine(*this, sends, me());
    std::vector<std::byte> packed = pack_offer(sends, receives);
    append(packed, sends, mine, Way::offer);
    write(sends, mine, 0);
    bool all_have_windows = windows_.has_value();
    Offers const offers(meet(Step::at_offer, std::move(packed), call, &all_have_windows),
                        group_.world_ranks());
    if (!all_have_windows) {
      windows_.reset();
    }
    std::vector<std::size_t> const matches = offers.match(group_.rank());
    if (!all_have_windows && want_windows(offers)) {
      make_windows(offers, call);
      mine = Sender(*this, sends, me());
    }

    std::vector<Sender> const senders = all_senders(offers);
    std::vector<Arrival> arrivals;
    for (std::size_t i = 0; i < receives.size(); ++i) {
      auto const peer = static_cast<std::size_t>(receives[i].peer);
      arrivals.push_back({peer, senders[peer].places[matches[i]], receives[i]});
    }
    pass_windows(sends, mine, senders, arrivals, all_have_windows, call);
    pass_rank_0(sends, mine, senders, arrivals, call);
    take(Way::offer, arrivals,
         [&offers](std::size_t rank) { return offers.data_of(static_cast<int>(rank)).data(); });
    for (std::size_t i = 0; i < arrivals.size(); ++i) {
      if (arrivals[i].place.way == Way::own) {
        arrivals[i].take(static_cast<std::byte const*>(sends[matches[i]].data));
      }
    }
    offers.count_sent_by(group_.rank());
  }

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
        static_cast<void>(meet(Step::at_round + static_cast<std::uint32_t>(round), {}, call));
      }
      for (Arrival const& one : arrivals) {
        if (one.place.way == Way::window) {
          WindowRounds::Part const part = senders[one.peer].rounds.part(one.place.at, round);
          one.take(windows_->of(one.peer, group_.meetings() - 1) + part.at, part.first, part.bytes);
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
    auto const all = meet(Step::at_star, std::move(packed), call);
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

  [[noreturn]] void refuse(std::size_t rank, Call const& call) const {
    auto const world = group_.world_ranks();
    throw MismatchError(
        concat("shardmesh::exchange: rank ", std::to_string(world[rank]), " and rank ",
               std::to_string(world[me()]), " are at different points of \"", call.operation(),
               "\": one of them is in another call of that name, or has failed in this one and "
               "calls again; every rank must make the same calls"));
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
  /// @param all_have_windows  comes with whether this rank has, and leaves with whether all have.
  [[nodiscard]] std::vector<std::vector<std::byte>> meet(std::uint32_t step,
                                                         std::vector<std::byte> bytes,
                                                         Call const& call,
                                                         bool* all_have_windows = nullptr) {
    Mark const mine{step, windows_ ? 1U : 0U};
    auto const* const raw = reinterpret_cast<std::byte const*>(&mine);
    bytes.insert(bytes.end(), raw, raw + sizeof(mine));
    std::atomic_thread_fence(std::memory_order_seq_cst);
    auto all = group_.all_gather(bytes, call);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      Mark other;
      if (all[rank].size() >= sizeof(other)) {
        std::memcpy(&other, all[rank].data() + all[rank].size() - sizeof(other), sizeof(other));
      }
      if (other.step != step) {
        refuse(rank, call);
      }
      all[rank].resize(all[rank].size() - sizeof(other));
      if (all_have_windows != nullptr) {
        *all_have_windows = *all_have_windows && other.has_windows != 0;
      }
    }
    return all;
  }

  void write(std::span<Message const> sends, Sender const& mine, std::size_t round) const {
    for (std::size_t i = 0; i < sends.size(); ++i) {
      if (mine.places[i].way == Way::window) {
        WindowRounds::Part const part = mine.rounds.part(mine.places[i].at, round);
        std::copy_n(static_cast<std::byte const*>(sends[i].data) + part.first, part.bytes,
                    windows_->mine(group_.meetings()) + part.at);
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

  void make_windows(Offers const& offers, Call const& call) {
    std::vector<std::uint64_t> hosts;
    for (int rank = 0; rank < group_.size(); ++rank) {
      hosts.push_back(offers.host(rank));
    }
    std::uint32_t step = Step::at_signs;
    windows_.emplace(me(), group_.world_ranks(), hosts, [&](std::span<std::byte const> bytes) {
      return meet(step++, {bytes.begin(), bytes.end()}, call);
    });
  }

  SocketGroup& group_;
  std::optional<SharedWindows> windows_;  // none before a message is worth it
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
