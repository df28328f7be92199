// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/memory/buffer.hpp>
#include <shardmesh/tensor/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The addresses that a rank opens to its peers for one exchange.
struct SharedEntry {
  void* target = nullptr;
  void* staging = nullptr;
};

/// An exchange between ranks that share an address space: each owner pushes its boxes straight into
/// place. Device work is ordered by events; the host only meets the other hosts.
template <MemorySpace Space, class Comm>
void exchange_shared(Comm const& comm,
                     std::span<ExchangeJob const> jobs,
                     std::vector<Buffer<Space>>& staging,
                     Call const& call,
                     typename Space::Stream stream) {
  using Event = typename Space::Event;
  Event ready = Space::make_event();
  Event done = Space::make_event();
  Space::record(ready, stream);

  struct Events {
    Event* of_kind[2];
  };
  Events const events{{&ready, &done}};
  std::vector<std::byte> mine(sizeof(events) + jobs.size() * sizeof(SharedEntry));
  std::memcpy(mine.data(), &events, sizeof(events));
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    SharedEntry const entry{jobs[j].target, staging[j].data()};
    std::memcpy(mine.data() + sizeof(events) + j * sizeof(entry), &entry, sizeof(entry));
  }
  auto phase = comm.copy_phase(stream);
  auto const all = comm.all_gather(mine, call);
  auto const event_of = [&all](int peer, std::size_t which) {
    Events theirs{};
    std::memcpy(&theirs, all[static_cast<std::size_t>(peer)].data(), sizeof(theirs));
    return theirs.of_kind[which];
  };

  std::vector<bool> waited(all.size(), false);
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    copy_locals<Space>(jobs[j], staging[j].data(), stream);
    for (Transfer const& one : jobs[j].step->sends) {
      auto const peer = static_cast<std::size_t>(one.peer);
      if (!waited[peer]) {
        Space::wait(stream, *event_of(one.peer, 0));
        waited[peer] = true;
      }
      SharedEntry theirs;
      std::memcpy(&theirs, all[peer].data() + sizeof(events) + j * sizeof(theirs), sizeof(theirs));
      Space::copy(
          copy_of(one, jobs[j].source, theirs.target, theirs.staging, size_of(jobs[j].dtype)),
          stream);
    }
  }
  Space::record(done, stream);
  bool const pending = Space::kind == MemoryKind::cuda;
  if (!pending) {
    phase.end();
  }
  comm.barrier(call);
  std::vector<bool> received(all.size(), false);
  for (ExchangeJob const& job : jobs) {
    for (Transfer const& one : job.step->receives) {
      if (!received[static_cast<std::size_t>(one.peer)]) {
        Space::wait(stream, *event_of(one.peer, 1));
        received[static_cast<std::size_t>(one.peer)] = true;
      }
    }
  }
  if (pending) {
    phase.end();
    comm.barrier(call);  // nobody may drop its events before the others have waited on them
  }
  phase.close();
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
