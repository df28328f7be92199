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

#include <shardmesh/comm/call.hpp>
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
/// same calls in the same order. Each takes a `Call`, last and with a default, that says for whom it
/// is made; ranks whose calls differ get MismatchError before they can use what the others sent (on
/// NCCL shortly after, see `Checks`).
/// - `split(color, key)`: a group for each color, ranks ordered by key, then by rank; an empty
///   handle (false) for a negative color.
/// - `all_gather(bytes)`: small host data of any length, by rank. The control channel.
/// - `exchange<Space>(sends, receives, stream)`: contiguous messages between pairs, matched in order;
///   only for spaces with `moves<Space>`. What is received must not overlap with what is sent, and holds anything
///   after an error.
/// - `shared_address_space`: pointers of every rank are valid on every rank, so that tensors can be
///   written in place instead of being exchanged; such a group also has `copy_phase(stream)`, which
///   keeps memory in place until nobody copies (see `detail::CopyPhase`).
/// - `world_ranks()`: the ranks of the group in the numbering of the whole job, for messages.
template <class C>
concept Communicator =
    std::copyable<C> && std::is_default_constructible_v<C> &&
    requires(C const& comm, std::span<std::byte const> bytes, int number, Call call) {
      static_cast<bool>(comm);
      { comm.rank() } -> std::same_as<int>;
      { comm.size() } -> std::same_as<int>;
      { comm.split(number, number, call) } -> std::same_as<C>;
      { comm.split(number, number) } -> std::same_as<C>;
      { comm.barrier(call) };
      { comm.barrier() };
      { comm.all_gather(bytes, call) } -> std::same_as<std::vector<std::vector<std::byte>>>;
      { comm.all_gather(bytes) } -> std::same_as<std::vector<std::vector<std::byte>>>;
      { comm.world_ranks() } -> std::same_as<std::vector<int>>;
      { C::shared_address_space } -> std::convertible_to<bool>;
      { C::template moves<HostMemory> } -> std::convertible_to<bool>;
    };

/// The same value type from every rank, by rank.
/// @collective over `comm`.
template <Communicator Comm, class T>
[[nodiscard]] std::vector<T> all_gather_value(Comm const& comm,
                                              T const& value,
                                              Call const& call = "all_gather_value") {
  static_assert(std::is_trivially_copyable_v<T>,
                "shardmesh::all_gather_value: T must be trivially copyable; send bytes with "
                "all_gather instead");
  auto const all = comm.all_gather(std::as_bytes(std::span<T const, 1>(&value, 1)), call);
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
[[nodiscard]] std::vector<std::string> all_gather_text(Comm const& comm,
                                                       std::string_view text,
                                                       Call const& call = "all_gather_text") {
  auto const all = comm.all_gather(
      std::span<std::byte const>(reinterpret_cast<std::byte const*>(text.data()), text.size()),
      call);
  std::vector<std::string> texts;
  texts.reserve(all.size());
  for (auto const& bytes : all) {
    texts.emplace_back(reinterpret_cast<char const*>(bytes.data()), bytes.size());
  }
  return texts;
}

/// Compares what ranks are about to do.
/// @param operation  a literal, the name that the user called.
/// @param arguments  describes this rank's arguments.
/// @throws MismatchError on every rank, showing both sides, if a rank's differ from rank 0's.
/// @collective over `comm`.
template <Communicator Comm>
void check_agreement(Comm const& comm, char const* operation, std::string const& arguments) {
  auto const words = [&arguments] { return arguments; };
  comm.barrier(Call(operation, Fingerprint().add(arguments), words));
}

/// Turns a failure that only some ranks see into the same error on all of them.
/// @param problem what is wrong on this rank; empty if nothing.
/// @param call    what the ranks are about to do.
/// @throws E on every rank, naming the first rank with a problem (in the numbering of the whole
///         job), if there is one; MismatchError if the ranks make different calls.
/// @collective over `comm`.
template <class E, Communicator Comm>
void throw_together(Comm const& comm, std::string_view problem, Call const& call = "check") {
  auto const problems = all_gather_text(comm, problem, call);
  for (std::size_t rank = 0; rank < problems.size(); ++rank) {
    if (!problems[rank].empty()) {
      throw E(detail::readable(problems[rank]) + " [rank " +
              std::to_string(comm.world_ranks()[rank]) + "]");
    }
  }
}

}  // namespace v0
}  // namespace shardmesh
