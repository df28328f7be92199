// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/host.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// How many messages a rank sends and receives, and on which machine it is: the start of its offer. The messages
/// follow.
struct OfferHeader {
  std::uint64_t sends = 0;
  std::uint64_t receives = 0;
  std::uint64_t host = 0;
};

/// What a rank brings to an exchange as bytes, for the other ranks.
/// @tparam Sends, Receives ranges of `Message`.
template <class Sends, class Receives>
[[nodiscard]] std::vector<std::byte> pack_offer(Sends const& sends, Receives const& receives) {
  OfferHeader const header{sends.size(), receives.size(), host_id()};
  std::size_t const to_send = sends.size() * sizeof(Message);
  std::size_t const to_receive = receives.size() * sizeof(Message);
  std::vector<std::byte> packed(sizeof(header) + to_send + to_receive);
  std::byte* at = packed.data();
  std::memcpy(at, &header, sizeof(header));
  at += sizeof(header);
  if (to_send > 0) {
    std::memcpy(at, sends.data(), to_send);
  }
  if (to_receive > 0) {
    std::memcpy(at + to_send, receives.data(), to_receive);
  }
  return packed;
}

/// What all ranks bring to an exchange, in the bytes that they gathered: what every rank finds alike
/// before anything is moved. The addresses in it are those of their ranks.
class Offers {
 public:
  /// @param all    from each rank what `pack_offer` made; data may follow.
  /// @param world  the ranks in the numbering of the whole job.
  /// @throws MismatchError, the same on every rank, if the messages do not match in pairs.
  Offers(std::vector<std::vector<std::byte>> all, std::vector<int> world)
      : all_(std::move(all)), world_(std::move(world)) {
    for (int rank = 0; rank < ranks(); ++rank) {
      check_form(rank);
    }
    for (int rank = 0; rank < ranks(); ++rank) {
      for (std::size_t i = 0; i < header(rank).sends; ++i) {
        check_peer(rank, message(rank, i).peer);
      }
    }
    for (int rank = 0; rank < ranks(); ++rank) {
      static_cast<void>(match(rank));
    }
  }

  [[nodiscard]] std::vector<Message> sends(int rank) const {
    std::vector<Message> all;
    for (std::size_t i = 0; i < header(rank).sends; ++i) {
      all.push_back(message(rank, i));
    }
    return all;
  }
  /// See `host_id`.
  [[nodiscard]] std::uint64_t host(int rank) const { return header(rank).host; }

  /// Message `i` of a rank: first those that it sends, then those that it receives.
  [[nodiscard]] Message message(int rank, std::size_t i) const {
    Message one;
    std::memcpy(&one, bytes(rank).data() + sizeof(OfferHeader) + i * sizeof(one), sizeof(one));
    return one;
  }

  /// Counts what `rank`, the caller, sends to other processes.
  void count_sent_by(int rank) const {
    for (std::size_t i = 0; i < header(rank).sends; ++i) {
      Message const one = message(rank, i);
      if (one.peer != rank) {
        count_sent(header(one.peer).host, one.bytes);
      }
    }
  }

  /// What follows the offer of a rank.
  [[nodiscard]] std::span<std::byte const> data_of(int rank) const {
    OfferHeader const counts = header(rank);
    return std::span(bytes(rank))
        .subspan(sizeof(counts) + (counts.sends + counts.receives) * sizeof(Message));
  }

  /// For each message that `rank` receives, the number of the message in its sender's sends.
  /// @throws MismatchError naming both ranks if a message has no counterpart of its size.
  [[nodiscard]] std::vector<std::size_t> match(int rank) const {
    std::vector<std::size_t> next(all_.size(), 0);
    std::vector<std::size_t> found;
    OfferHeader const mine = header(rank);
    for (std::size_t i = 0; i < mine.receives; ++i) {
      Message const wanted = message(rank, mine.sends + i);
      check_peer(rank, wanted.peer);
      std::size_t& position = next[static_cast<std::size_t>(wanted.peer)];
      position = first_for(rank, wanted.peer, position);
      if (position == header(wanted.peer).sends ||
          message(wanted.peer, position).bytes != wanted.bytes) {
        refuse(rank, wanted, position);
      }
      found.push_back(position++);
    }
    for (int peer = 0; peer < ranks(); ++peer) {
      std::size_t const left = first_for(rank, peer, next[static_cast<std::size_t>(peer)]);
      if (left < header(peer).sends) {
        throw MismatchError("shardmesh::exchange: rank " + name(peer) + " sends " +
                            std::to_string(message(peer, left).bytes) + " bytes to rank " +
                            name(rank) + ", which does not expect them");
      }
    }
    return found;
  }

 private:
  [[nodiscard]] int ranks() const noexcept { return static_cast<int>(all_.size()); }
  [[nodiscard]] std::vector<std::byte> const& bytes(int rank) const {
    return all_[static_cast<std::size_t>(rank)];
  }
  [[nodiscard]] std::string name(int rank) const {
    return std::to_string(world_[static_cast<std::size_t>(rank)]);
  }
  [[nodiscard]] OfferHeader header(int rank) const {
    OfferHeader counts;
    std::memcpy(&counts, bytes(rank).data(), sizeof(counts));
    return counts;
  }

  /// The first of `sender`'s messages to `receiver`, from position `from` on.
  [[nodiscard]] std::size_t first_for(int receiver, int sender, std::size_t from) const {
    std::size_t const end = header(sender).sends;
    while (from < end && message(sender, from).peer != receiver) {
      ++from;
    }
    return from;
  }

  void check_form(int rank) const {
    std::size_t const size = bytes(rank).size();
    std::size_t const most = size / sizeof(Message);
    bool legal = size >= sizeof(OfferHeader);
    if (legal) {
      OfferHeader const counts = header(rank);
      legal = counts.sends <= most && counts.receives <= most &&
              sizeof(counts) + (counts.sends + counts.receives) * sizeof(Message) <= size;
    }
    if (!legal) {
      throw MismatchError("shardmesh::exchange: rank " + name(rank) +
                          " is in another call; every rank must make the same calls");
    }
  }

  void check_peer(int rank, int peer) const {
    if (peer < 0 || peer >= ranks()) {
      throw MismatchError("shardmesh::exchange: rank " + name(rank) + " has a message for rank " +
                          std::to_string(peer) + " of a group of " + std::to_string(ranks()) +
                          "; peers are ranks of the group");
    }
  }

  [[noreturn]] void refuse(int rank, Message const& wanted, std::size_t position) const {
    bool const is_sent = position < header(wanted.peer).sends;
    throw MismatchError(
        "shardmesh::exchange: rank " + name(rank) + " expects " + std::to_string(wanted.bytes) +
        " bytes from rank " + name(wanted.peer) + ", which sends " +
        (is_sent ? std::to_string(message(wanted.peer, position).bytes) + " bytes" : "nothing"));
  }

  std::vector<std::vector<std::byte>> all_;
  std::vector<int> world_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
