// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/memory/host.hpp>

namespace shardmesh::inline v0 {

/// One contiguous message to or from a peer of the communicator.
struct Message {
  int peer = 0;
  void* data = nullptr;
  std::size_t bytes = 0;
};

/// A group of ranks that talk to each other; the handle of one of them. Cheap to copy.
///
/// All calls but `rank`, `size` and `world_ranks` are collective: every rank of the group makes the
/// same calls in the same order.
/// - `split(color, key)`: a group for each color, ranks ordered by key, then by rank; an empty
///   handle (false) for a negative color.
/// - `all_gather(bytes)`: small host data of any length, by rank. The control channel.
/// - `exchange<Space>(sends, receives, stream)`: contiguous messages between pairs, matched in order;
///   only for spaces with `moves<Space>`.
/// - `shared_address_space`: pointers of every rank are valid on every rank, so that tensors can be
///   written in place instead of being exchanged; such a group also has `copy_phase(stream)`, which
///   keeps memory in place until nobody copies (see `detail::CopyPhase`).
/// - `world_ranks()`: the ranks of the group in the numbering of the whole job, for messages.
template <class C>
concept Communicator = std::copyable<C> && std::is_default_constructible_v<C> &&
                       requires(C const& comm, std::span<std::byte const> bytes, int number) {
                         static_cast<bool>(comm);
                         { comm.rank() } -> std::same_as<int>;
                         { comm.size() } -> std::same_as<int>;
                         { comm.split(number, number) } -> std::same_as<C>;
                         { comm.barrier() };
                         {
                           comm.all_gather(bytes)
                         } -> std::same_as<std::vector<std::vector<std::byte>>>;
                         { comm.world_ranks() } -> std::same_as<std::vector<int>>;
                         { C::shared_address_space } -> std::convertible_to<bool>;
                         { C::template moves<HostMemory> } -> std::convertible_to<bool>;
                       };

/// The same value type from every rank, by rank.
/// @collective over `comm`.
template <Communicator Comm, class T>
[[nodiscard]] std::vector<T> all_gather_value(Comm const& comm, T const& value) {
  static_assert(std::is_trivially_copyable_v<T>,
                "shardmesh::all_gather_value: T must be trivially copyable; send bytes with "
                "all_gather instead");
  auto const all = comm.all_gather(std::as_bytes(std::span<T const, 1>(&value, 1)));
  std::vector<T> values(all.size());
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].size() != sizeof(T)) {
      throw MismatchError("shardmesh::all_gather_value: rank " +
                          std::to_string(comm.world_ranks()[rank]) + " sent " +
                          std::to_string(all[rank].size()) + " bytes instead of " +
                          std::to_string(sizeof(T)) + "; all ranks must make the same call");
    }
    std::memcpy(&values[rank], all[rank].data(), sizeof(T));
  }
  return values;
}

/// Text from every rank, by rank.
/// @collective over `comm`.
template <Communicator Comm>
[[nodiscard]] std::vector<std::string> all_gather_text(Comm const& comm, std::string_view text) {
  auto const all = comm.all_gather(
      std::span<std::byte const>(reinterpret_cast<std::byte const*>(text.data()), text.size()));
  std::vector<std::string> texts;
  texts.reserve(all.size());
  for (auto const& bytes : all) {
    texts.emplace_back(reinterpret_cast<char const*>(bytes.data()), bytes.size());
  }
  return texts;
}

/// Compares what ranks are about to do.
/// @param what the operation; `text` describes this rank's arguments.
/// @throws MismatchError on every rank, showing both sides, if a rank's text differs from rank 0's.
/// @collective over `comm`.
template <Communicator Comm>
void check_agreement(Comm const& comm, std::string_view what, std::string_view text) {
  auto const texts = all_gather_text(comm, text);
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] != texts[0]) {
      auto const world = comm.world_ranks();
      throw MismatchError(std::string(what) + ": ranks disagree; rank " + std::to_string(world[0]) +
                          " has " + texts[0] + ", rank " + std::to_string(world[rank]) + " has " +
                          texts[rank] +
                          "; all ranks must pass the same arguments in the same order");
    }
  }
}

/// Turns a failure that only some ranks see into the same error on all of them.
/// @param problem what is wrong on this rank; empty if nothing.
/// @throws E on every rank, naming the first rank with a problem (in the numbering of the whole
///         job), if there is one.
/// @collective over `comm`.
template <class E, Communicator Comm>
void throw_together(Comm const& comm, std::string_view problem) {
  auto const problems = all_gather_text(comm, problem);
  for (std::size_t rank = 0; rank < problems.size(); ++rank) {
    if (!problems[rank].empty()) {
      throw E(problems[rank] + " [rank " + std::to_string(comm.world_ranks()[rank]) + "]");
    }
  }
}

namespace detail {

/// What one rank brings to an exchange.
struct Offer {
  std::vector<Message> sends;
  std::vector<Message> receives;
  std::size_t bytes = 0;  ///< of the packed offer; data may follow
};

/// The place of each message to receive among its sender's sends: what every rank finds alike from
/// everybody's offer, before anything is moved.
class MessageMatcher {
 public:
  /// @param world the ranks in the numbering of the whole job.
  MessageMatcher(std::vector<Offer> const& offers, std::vector<int> const& world)
      : offers_(offers), world_(world) {}

  /// For each message that `rank` receives, the number of the message in its sender's sends.
  /// @throws MismatchError naming both ranks if a message has no counterpart of its size.
  [[nodiscard]] std::vector<std::size_t> match(int rank) const {
    Offer const& mine = offers_[static_cast<std::size_t>(rank)];
    std::vector<std::size_t> next(offers_.size(), 0);
    std::vector<std::size_t> found;
    for (Message const& wanted : mine.receives) {
      check_peer(rank, wanted);
      auto const peer = static_cast<std::size_t>(wanted.peer);
      std::size_t& position = next[peer];
      find(offers_[peer].sends, rank, position);
      if (position == offers_[peer].sends.size() ||
          offers_[peer].sends[position].bytes != wanted.bytes) {
        refuse(rank, wanted.peer, wanted.bytes, position);
      }
      found.push_back(position++);
    }
    for (std::size_t peer = 0; peer < offers_.size(); ++peer) {
      find(offers_[peer].sends, rank, next[peer]);
      if (next[peer] < offers_[peer].sends.size()) {
        throw MismatchError("shardmesh::exchange: rank " + name(static_cast<int>(peer)) +
                            " sends " + std::to_string(offers_[peer].sends[next[peer]].bytes) +
                            " bytes to rank " + name(rank) + ", which does not expect them");
      }
    }
    return found;
  }

  /// @throws MismatchError, the same on every rank, if a message of any rank does not match.
  void check_all() const {
    for (std::size_t rank = 0; rank < offers_.size(); ++rank) {
      for (Message const& one : offers_[rank].sends) {
        check_peer(static_cast<int>(rank), one);
      }
    }
    for (std::size_t rank = 0; rank < offers_.size(); ++rank) {
      static_cast<void>(match(static_cast<int>(rank)));
    }
  }

 private:
  static void find(std::vector<Message> const& sends, int receiver, std::size_t& position) {
    while (position < sends.size() && sends[position].peer != receiver) {
      ++position;
    }
  }

  [[nodiscard]] std::string name(int rank) const {
    return std::to_string(world_[static_cast<std::size_t>(rank)]);
  }

  void check_peer(int rank, Message const& one) const {
    if (one.peer < 0 || static_cast<std::size_t>(one.peer) >= offers_.size()) {
      throw MismatchError("shardmesh::exchange: rank " + name(rank) + " has a message for rank " +
                          std::to_string(one.peer) + " of a group of " +
                          std::to_string(offers_.size()) + "; peers are ranks of the group");
    }
  }

  [[noreturn]] void refuse(int rank, int peer, std::size_t bytes, std::size_t position) const {
    auto const& sends = offers_[static_cast<std::size_t>(peer)].sends;
    throw MismatchError("shardmesh::exchange: rank " + name(rank) + " expects " +
                        std::to_string(bytes) + " bytes from rank " + name(peer) +
                        ", which sends " +
                        (position < sends.size() ? std::to_string(sends[position].bytes) + " bytes"
                                                 : std::string("nothing")));
  }

  std::vector<Offer> const& offers_;
  std::vector<int> const& world_;
};

/// An offer as bytes, for the other ranks.
[[nodiscard]] inline std::vector<std::byte> pack_offer(std::span<Message const> sends,
                                                       std::span<Message const> receives) {
  std::uint64_t const counts[2] = {sends.size(), receives.size()};
  std::vector<std::byte> packed;
  auto const append = [&packed](void const* data, std::size_t bytes) {
    auto const* const first = static_cast<std::byte const*>(data);
    packed.insert(packed.end(), first, first + bytes);
  };
  append(counts, sizeof(counts));
  append(sends.data(), sends.size_bytes());
  append(receives.data(), receives.size_bytes());
  return packed;
}

/// Everybody's offer; the addresses in it are those of their ranks.
/// @throws MismatchError, the same on every rank, if the messages do not match in pairs.
[[nodiscard]] inline std::vector<Offer> read_offers(std::vector<std::vector<std::byte>> const& all,
                                                    std::vector<int> const& world) {
  std::vector<Offer> offers(all.size());
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    std::uint64_t counts[2] = {};
    std::size_t const most = all[rank].size() / sizeof(Message);
    bool legal = all[rank].size() >= sizeof(counts);
    if (legal) {
      std::memcpy(counts, all[rank].data(), sizeof(counts));
      legal = counts[0] <= most && counts[1] <= most &&
              sizeof(counts) + (counts[0] + counts[1]) * sizeof(Message) <= all[rank].size();
    }
    if (!legal) {
      throw MismatchError("shardmesh::exchange: rank " + std::to_string(world[rank]) +
                          " is in another call; every rank must make the same calls");
    }
    std::byte const* at = all[rank].data() + sizeof(counts);
    for (auto* messages : {&offers[rank].sends, &offers[rank].receives}) {
      messages->resize(counts[messages == &offers[rank].sends ? 0 : 1]);
      for (Message& one : *messages) {
        std::memcpy(&one, at, sizeof(one));
        at += sizeof(one);
      }
    }
    offers[rank].bytes = static_cast<std::size_t>(at - all[rank].data());
  }
  MessageMatcher(offers, world).check_all();
  return offers;
}

}  // namespace detail

}  // namespace shardmesh::inline v0
