// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/tensor/detail/exchange_packed.hpp>
#include <shardmesh/tensor/detail/exchange_shared.hpp>
#include <shardmesh/tensor/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Gives messages to a communicator within an operation that has begun.
template <class Comm>
struct WithinOperation {
  Comm const& comm;

  template <class Space>
  void exchange(std::span<Message const> sends,
                std::span<Message> receives,
                typename Space::Stream stream,
                Call const&) const {
    comm.give(sends, receives, stream);
  }
};

/// An exchange of which some ranks push their boxes straight into place in another process's memory, and others
/// exchange messages: decided for each pair by what both know, the bytes that one sends to the other.
///
/// All receivers post their places before any sender waits for one, so that none waits for itself.
template <MemorySpace Space, class Comm, class Push>
void exchange_pushed(Comm const& comm,
                     Push& push,
                     std::span<ExchangeJob const> jobs,
                     Staging<Space> const& staging,
                     std::span<PeerTraffic const> sends,
                     std::span<PeerTraffic const> receives,
                     Call const& call,
                     typename Space::Stream caller) {
  auto const is_pushed = [&push](PeerTraffic const& traffic) {
    return push.reaches(traffic.peer) && traffic.bytes >= push.least_bytes();
  };
  comm.operate(call, caller, [&](typename Space::Stream stream, auto const& check) {
    std::vector<typename Push::Addresses> places;
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      places.push_back({jobs[j].target, staging.of(j)});
    }
    if (std::any_of(receives.begin(), receives.end(), is_pushed)) {
      push.open(stream);
    }
    std::vector<int> senders;
    std::vector<PeerTraffic> incoming;
    for (PeerTraffic const& traffic : receives) {
      if (is_pushed(traffic) && push.post(traffic.peer, call, places, check)) {
        senders.push_back(traffic.peer);
      } else {
        incoming.push_back(traffic);
      }
    }

    // Beginning behind itself, each rank writes to another one first.
    auto const next = std::find_if(sends.begin(), sends.end(), [&comm](PeerTraffic const& traffic) {
      return traffic.peer > comm.rank();
    });
    std::vector<PeerTraffic> in_turn(next, sends.end());
    in_turn.insert(in_turn.end(), sends.begin(), next);
    // What stays goes first where it is little, and else beside what leaves.
    bool const beside = local_bytes(jobs) >= bytes_worth_a_side_stream;
    auto& window = push.template kept<SharedWindow<Space>>();
    window.open(jobs, staging, comm.size());
    if (beside) {
      Space::record(window.events().ready, stream);
    } else {
      copy_what_stays<Space>(jobs, staging, window.events(), stream);
    }

    std::vector<std::pair<PeerTraffic const*, typename Push::Post>> pushes;
    std::vector<PeerTraffic> outgoing;
    for (PeerTraffic const& traffic : in_turn) {
      auto post = is_pushed(traffic) ? push.take(traffic.peer, call, check) : std::nullopt;
      if (post) {
        push.await_ready(traffic.peer, *post);
        pushes.emplace_back(&traffic, std::move(*post));
      } else {
        outgoing.push_back(traffic);
      }
    }
    push.give(stream);
    for (auto const& [traffic, post] : pushes) {
      for (PackedTransfer const& one : traffic->transfers) {
        auto const& place = post.tensors[one.job];
        Space::copy(copy_of(*one.transfer, jobs[one.job].source, place.target, place.staging,
                            size_of(jobs[one.job].dtype)),
                    stream);
      }
      push.tell(traffic->peer, post);
      if (beside || !outgoing.empty() || !incoming.empty()) {
        push.give(stream);  // the others need not wait for more than their part
      }
      comm.count_sent(traffic->peer, traffic->bytes);
    }
    if (beside) {
      copy_what_stays<Space>(jobs, staging, window.events(), stream);
    }
    exchange_messages<Space>(
        WithinOperation<Comm>{comm}, jobs, staging, outgoing, incoming, [] {}, call, stream);
    for (int const sender : senders) {
      push.await_arrival(sender);
    }
    push.give(stream);
  });
}

/// An exchange between processes, some of which may reach each other's memory.
template <MemorySpace Space, class Comm>
void exchange_reached(Comm const& comm,
                      std::span<ExchangeJob const> jobs,
                      Staging<Space> const& staging,
                      Call const& call,
                      typename Space::Stream stream) {
  auto* const push = comm.template peer_push<Space>();
  if (push == nullptr || jobs.size() > push->most_tensors) {
    exchange_packed<Space>(comm, jobs, staging, call, stream);
    return;
  }
  auto const sends = by_peer<&RankStep::sends>(jobs);
  auto const receives = by_peer<&RankStep::receives>(jobs);
  exchange_pushed<Space>(comm, *push, jobs, staging, sends, receives, call, stream);
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
