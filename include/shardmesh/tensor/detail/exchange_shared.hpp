// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/counters.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/tensor/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The addresses that a rank opens to its peers, for one tensor of an exchange.
struct SharedEntry {
  void* target = nullptr;
  void* staging = nullptr;
};

/// The device that events are made for and work is given to; 0 where there is but one place.
template <MemorySpace Space>
[[nodiscard]] int device_in_use() {
  if constexpr (requires { Space::current_device(); }) {
    return Space::current_device();
  } else {
    return 0;
  }
}

/// What a rank keeps for its exchanges with ranks of one address space, and shows to them: nothing is made
/// anew from one exchange to the next.
///
/// The events can be used again in the next exchange: a rank records one only when all have met once more,
/// by when they have waited for what it stood for.
template <MemorySpace Space>
class SharedWindow {
 public:
  using Event = typename Space::Event;
  /// Points in the rank's stream, on one device.
  struct Events {
    int device = 0;
    Event ready = Space::make_event();  ///< its memory may be written
    Event done = Space::make_event();   ///< its own copies have arrived

    // For what stays on the rank, beside what goes over the links.
    typename Space::OwnedStream side = Space::make_stream();
    Event stayed = Space::make_event();
  };

  /// @param ranks  of the group.
  void open(std::span<ExchangeJob const> jobs, Staging<Space> const& staging, int ranks) {
    entries_.clear();
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      entries_.push_back({jobs[j].target, staging.of(j)});
    }
    seen_.assign(static_cast<std::size_t>(ranks), false);
    senders_.clear();
    if (int const device = device_in_use<Space>();
        events_ == nullptr || events_->device != device) {
      events_ = nullptr;
      for (std::unique_ptr<Events> const& one : all_events_) {
        events_ = one->device == device ? one.get() : events_;
      }
      if (events_ == nullptr) {
        all_events_.push_back(std::make_unique<Events>());
        events_ = all_events_.back().get();
        events_->device = device;
      }
    }
  }

  [[nodiscard]] SharedEntry const& entry(std::size_t job) const { return entries_[job]; }
  [[nodiscard]] Events& events() const { return *events_; }

  /// For the owner alone. @returns whether it is the first time since `open` or `forget`.
  [[nodiscard]] bool first_time(int peer) {
    return !std::exchange(seen_[static_cast<std::size_t>(peer)], true);
  }
  void forget() { seen_.assign(seen_.size(), false); }
  /// Whose copies the owner waits for.
  [[nodiscard]] std::vector<Event const*>& senders() { return senders_; }

 private:
  std::vector<SharedEntry> entries_;  // by job
  std::vector<char> seen_;            // by rank
  std::vector<Event const*> senders_;
  Events* events_ = nullptr;                         // in use
  std::vector<std::unique_ptr<Events>> all_events_;  // by device; others may still wait for them
};

/// From so many bytes on, what stays on a rank is copied beside what leaves it. Below, the two more points at which
/// streams wait for each other take longer.
inline constexpr std::size_t bytes_worth_a_side_stream = std::size_t{4} << 20;

/// Copies what stays on this rank, ordered on its stream.
template <MemorySpace Space>
void copy_what_stays(std::span<ExchangeJob const> jobs,
                     Staging<Space> const& staging,
                     typename SharedWindow<Space>::Events& events,
                     typename Space::Stream stream) {
  bool const beside =
      Space::kind == MemoryKind::cuda && local_bytes(jobs) >= bytes_worth_a_side_stream;
  auto const on = beside ? events.side.get() : stream;
  if (beside) {
    Space::wait(on, events.ready);
  }
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    copy_locals<Space>(jobs[j], staging.of(j), on);
  }
  if (beside) {
    Space::record(events.stayed, on);
    Space::wait(stream, events.stayed);
  }
}

/// An exchange between ranks that share an address space: each owner pushes its boxes straight into
/// place. Device work is ordered by events; the host only meets the other hosts, twice.
template <MemorySpace Space, class Comm>
void exchange_shared(Comm const& comm,
                     std::span<ExchangeJob const> jobs,
                     Staging<Space> const& staging,
                     Call const& call,
                     typename Space::Stream stream) {
  using Window = SharedWindow<Space>;
  auto phase = comm.copy_phase(stream);
  Window& mine = phase.template kept<Window>();
  mine.open(jobs, staging, comm.size());
  Space::record(mine.events().ready, stream);
  phase.show(&mine, call);

  std::size_t sent = 0;
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    for (Transfer const& one : jobs[j].step->sends) {
      sent += static_cast<std::size_t>(one.box.volume()) * size_of(jobs[j].dtype);
      Window const& theirs = phase.template shown<Window>(one.peer);
      if (mine.first_time(one.peer)) {
        Space::wait(stream, theirs.events().ready);
      }
      SharedEntry const& place = theirs.entry(j);
      Space::copy(copy_of(one, jobs[j].source, place.target, place.staging, size_of(jobs[j].dtype)),
                  stream);
    }
  }
  counts().process_bytes.add(sent);
  Space::record(mine.events().done, stream);
  copy_what_stays<Space>(jobs, staging, mine.events(), stream);
  // A rank that has met the others again may open its window for the next exchange.
  mine.forget();
  for (ExchangeJob const& job : jobs) {
    for (Transfer const& one : job.step->receives) {
      if (mine.first_time(one.peer)) {
        mine.senders().push_back(&phase.template shown<Window>(one.peer).events().done);
      }
    }
  }
  bool const pending = Space::kind == MemoryKind::cuda;
  if (!pending) {
    phase.end();
  }
  comm.barrier(call);
  for (auto const* const sender : mine.senders()) {
    Space::wait(stream, *sender);
  }
  if (pending) {
    phase.end();
  }
  phase.close();
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
