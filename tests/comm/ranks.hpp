// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What the tests of every engine share: bodies that run on any communicator, and errors as text.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/sockets.hpp>

#include "../support/errors.hpp"
#include "../support/sanitizers.hpp"

namespace test {

namespace sm = shardmesh;

using std::chrono::milliseconds;
using Texts = std::vector<std::string>;

inline bool contains(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

/// The timeout of what must not wait for one: long on any machine, whatever else runs there.
inline constexpr milliseconds patience{120'000};

/// Time that passes in `f`.
template <class F>
milliseconds time_of(F f) {
  auto const start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start);
}

/// What is wrong, "" if nothing, with what `attempt(timeout)` shows of a timeout that passes. On a slow or
/// busy machine ranks that do come may be late as well: then a longer timeout is tried.
template <class Attempt>
std::string in_time(milliseconds timeout, Attempt attempt) {
  while (true) {
    std::string wrong = attempt(timeout);
    timeout *= 5;
    if (wrong.empty() || timeout > patience) {
      return wrong;
    }
  }
}

/// The first of `texts` that is not `wanted`; "" if all are.
inline std::string first_other(Texts const& texts, std::string const& wanted) {
  auto const other = std::find_if(texts.begin(), texts.end(),
                                  [&](std::string const& text) { return text != wanted; });
  return other == texts.end() ? "" : *other;
}

/// Until another thread says so; that may have failed where the machine was too slow for `timeout`.
inline void wait_for(std::atomic<bool> const& flag, milliseconds timeout) {
  auto const end = std::chrono::steady_clock::now() + 3 * timeout + std::chrono::seconds(5);
  while (!flag && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(milliseconds(1));
  }
}

inline int free_port() {
  return sm::detail::Socket::listen(0).port();
}

/// Of the jobs of tests.
inline sm::JobSecret const secret("a secret that everybody can read here");

/// The connection of a rank that does the rest by hand.
inline sm::detail::Link join_as(int port, int rank, int ranks) {
  std::vector<int> const world(static_cast<std::size_t>(ranks));
  auto links = sm::detail::Rendezvous(world, 0, secret, patience).connect("127.0.0.1", port, rank);
  return std::move(links[0]);
}

/// Socket ranks as threads of this process. A rank that fails tells the others.
/// @returns what each rank threw, as text.
template <class Body>
Texts run_sockets(int ranks, sm::Limits timeout, Body body) {
  Texts errors(static_cast<std::size_t>(ranks), "no error");
  int const port = free_port();
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        sm::SocketCommunicator const world("127.0.0.1", port, rank, ranks, timeout, secret);
        try {
          body(world);
        } catch (std::exception const& error) {
          world.report_failure(error.what());
          throw;
        }
      } catch (std::exception const& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  threads.clear();
  return errors;
}

/// Byte `i` of message `number` between two ranks.
inline std::byte byte_of(int from, int to, std::size_t number, std::size_t i) {
  return static_cast<std::byte>((static_cast<std::size_t>(from * 31 + to * 7) + number * 3 + i) %
                                251);
}

/// Every rank sends messages of all `sizes` to every rank, itself included.
/// @returns what is wrong.
template <class Comm>
std::string exchange_all_pairs(Comm const& comm, std::vector<std::size_t> const& sizes) {
  std::vector<std::vector<std::byte>> outgoing;
  std::vector<std::vector<std::byte>> incoming;
  std::vector<sm::Message> sends;
  std::vector<sm::Message> receives;
  for (int peer = 0; peer < comm.size(); ++peer) {
    for (std::size_t number = 0; number < sizes.size(); ++number) {
      auto& out = outgoing.emplace_back(sizes[number]);
      for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = byte_of(comm.rank(), peer, number, i);
      }
      auto& in = incoming.emplace_back(sizes[number], std::byte{255});
      sends.push_back({peer, out.data(), out.size()});
      receives.push_back({peer, in.data(), in.size()});
    }
  }
  comm.template exchange<sm::HostMemory>(sends, receives);
  for (std::size_t m = 0; m < receives.size(); ++m) {
    for (std::size_t i = 0; i < incoming[m].size(); ++i) {
      if (incoming[m][i] != byte_of(receives[m].peer, comm.rank(), m % sizes.size(), i)) {
        return "rank " + std::to_string(comm.rank()) + ": byte " + std::to_string(i) +
               " of message " + std::to_string(m) + " is wrong";
      }
    }
  }
  return "";
}

/// Rank 0 sends `sent` bytes to rank 1, which expects `expected`; -1 for no message at all.
template <class Comm>
void exchange_sizes(Comm const& comm, int sent, int expected) {
  std::vector<std::byte> bytes(64);
  std::vector<sm::Message> sends;
  std::vector<sm::Message> receives;
  if (comm.rank() == 0 && sent >= 0) {
    sends.push_back({1, bytes.data(), static_cast<std::size_t>(sent)});
  }
  if (comm.rank() == 1 && expected >= 0) {
    receives.push_back({0, bytes.data(), static_cast<std::size_t>(expected)});
  }
  comm.template exchange<sm::HostMemory>(sends, receives);
}

/// Splits of six ranks. @returns what is wrong.
template <class Comm>
std::string splits_of_six(Comm const& world) {
  using Ranks = std::vector<int>;
  int const rank = world.rank();
  Comm const reversed = world.split(rank % 2, -rank);
  if (reversed.world_ranks() != (rank % 2 == 0 ? Ranks{4, 2, 0} : Ranks{5, 3, 1}) ||
      reversed.rank() != 2 - rank / 2 || reversed.size() != 3) {
    return "keys order the ranks";
  }
  Comm const equal = world.split(7, 5);
  if (equal.world_ranks() != Ranks{0, 1, 2, 3, 4, 5} || equal.rank() != rank) {
    return "equal keys keep the order";
  }
  Comm const some = world.split(rank < 2 ? -1 : 0, 0);
  if (static_cast<bool>(some) != (rank >= 2) || some.size() != (rank < 2 ? 0 : 4)) {
    return "a negative color gives an empty handle";
  }
  if (some) {
    Comm const pair = some.split(some.rank() / 2, some.rank());
    Ranks const wanted = rank < 4 ? Ranks{2, 3} : Ranks{4, 5};
    if (pair.world_ranks() != wanted || sm::all_gather_value(pair, rank) != wanted) {
      return "a split of a split";
    }
  }
  return sm::all_gather_value(reversed, rank) == reversed.world_ranks() ? "" : "gather in a split";
}

}  // namespace test
