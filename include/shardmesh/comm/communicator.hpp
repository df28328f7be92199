// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/memory/host.hpp>

namespace shardmesh {
inline namespace v0 {

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

}  // namespace v0
}  // namespace shardmesh
