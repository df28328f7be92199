// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <atomic>
#include <cstdint>

#include <shardmesh/core/config.hpp>

namespace shardmesh {
inline namespace v0 {

/// What the library has done in this process, all of its ranks together, since the process began or
/// `reset_counters` was called. Where each rank is a process of its own, that is what the rank has done.
///
/// What was done in a part of a program is the difference of two:
/// @code
///   sm::Counters const before = sm::counters();
///   step();
///   sm::Counters const done = sm::counters() - before;
/// @endcode
struct Counters {
  /// Calls in which ranks meet: barriers, gathers, splits, exchanges, collectives of NCCL. Each rank counts its own; one
  /// redistribution may be several.
  std::uint64_t collectives = 0;
  /// Nanoseconds that threads of the host have waited for other ranks in such calls, added up over ranks. Not
  /// what a device waits for.
  std::uint64_t waited_ns = 0;

  // Elements that a rank has sent to another one, in bytes, by where the other one is, whatever way the engine
  // takes between them. What a rank moves to a place of its own is not sent, and collectives of NCCL itself
  // (`all_reduce`) are not in it: NCCL chooses their ways.
  std::uint64_t process_bytes = 0;  ///< in the same process
  std::uint64_t host_bytes = 0;     ///< in another process of the same host
  std::uint64_t network_bytes = 0;  ///< on another host

  /// Bytes that have passed the TCP connections of processes, all of them: elements, which pass rank 0, what ranks tell
  /// each other, and signs of life.
  std::uint64_t socket_sent_bytes = 0;
  std::uint64_t socket_received_bytes = 0;

  std::uint64_t storage_read_bytes = 0;     ///< from files of checkpoints
  std::uint64_t storage_written_bytes = 0;  ///< to them

  std::uint64_t plan_hits = 0;    ///< plans that a mesh had already
  std::uint64_t plan_misses = 0;  ///< plans that were made

  [[nodiscard]] friend bool operator==(Counters const&, Counters const&) = default;
  [[nodiscard]] friend Counters operator-(Counters const& later, Counters const& earlier) noexcept {
    return {later.collectives - earlier.collectives,
            later.waited_ns - earlier.waited_ns,
            later.process_bytes - earlier.process_bytes,
            later.host_bytes - earlier.host_bytes,
            later.network_bytes - earlier.network_bytes,
            later.socket_sent_bytes - earlier.socket_sent_bytes,
            later.socket_received_bytes - earlier.socket_received_bytes,
            later.storage_read_bytes - earlier.storage_read_bytes,
            later.storage_written_bytes - earlier.storage_written_bytes,
            later.plan_hits - earlier.plan_hits,
            later.plan_misses - earlier.plan_misses};
  }
};

namespace detail {

/// One number of `Counters`, to which any thread adds. Nothing is ordered by it.
class Count {
 public:
  void add(std::uint64_t amount) noexcept { value_.fetch_add(amount, std::memory_order_relaxed); }
  void clear() noexcept { value_.store(0, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> value_ = 0;
};

/// Cache lines of their own for what is counted at different times.
struct Counts {
  alignas(64) Count collectives;
  Count waited_ns;
  Count process_bytes;
  Count host_bytes;
  Count network_bytes;
  alignas(64) Count socket_sent_bytes;
  Count socket_received_bytes;
  alignas(64) Count storage_read_bytes;
  Count storage_written_bytes;
  alignas(64) Count plan_hits;
  Count plan_misses;
};

/// Those of the process, also where it has several shared objects with the library in them.
[[nodiscard]] SHARDMESH_EXPORT inline Counts& counts() noexcept {
  static constinit Counts all;
  return all;
}

}  // namespace detail

/// The counters now. Each number is exact; they are not read at one instant, so read them when nothing is under way if
/// they are to fit each other.
[[nodiscard]] inline Counters counters() noexcept {
  detail::Counts const& now = detail::counts();
  return {now.collectives.value(),
          now.waited_ns.value(),
          now.process_bytes.value(),
          now.host_bytes.value(),
          now.network_bytes.value(),
          now.socket_sent_bytes.value(),
          now.socket_received_bytes.value(),
          now.storage_read_bytes.value(),
          now.storage_written_bytes.value(),
          now.plan_hits.value(),
          now.plan_misses.value()};
}

/// Sets all counters to 0. Parts of a program that count beside each other take differences instead.
inline void reset_counters() noexcept {
  detail::Counts& now = detail::counts();
  for (detail::Count* const one :
       {&now.collectives, &now.waited_ns, &now.process_bytes, &now.host_bytes, &now.network_bytes,
        &now.socket_sent_bytes, &now.socket_received_bytes, &now.storage_read_bytes,
        &now.storage_written_bytes, &now.plan_hits, &now.plan_misses}) {
    one->clear();
  }
}

}  // namespace v0
}  // namespace shardmesh
