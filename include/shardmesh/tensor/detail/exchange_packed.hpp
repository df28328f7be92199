// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/memory/buffer.hpp>
#include <shardmesh/tensor/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A transfer together with the job that it belongs to.
struct PackedTransfer {
  std::size_t job = 0;
  Transfer const* transfer = nullptr;
};

/// The transfers of an exchange with one peer, in the order that both sides keep.
struct PeerTraffic {
  int peer = 0;
  std::vector<PackedTransfer> transfers;
  std::size_t bytes = 0;
};

/// Groups the transfers of all jobs by peer, in ascending order of the peers: only those there are.
/// @tparam Side `&RankStep::sends` or `&RankStep::receives`.
template <auto Side>
[[nodiscard]] std::vector<PeerTraffic> by_peer(std::span<ExchangeJob const> jobs) {
  std::vector<int> peers;
  for (ExchangeJob const& job : jobs) {
    for (Transfer const& one : job.step->*Side) {
      if (peers.empty() || peers.back() != one.peer) {
        peers.push_back(one.peer);
      }
    }
  }
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  std::vector<PeerTraffic> traffic;
  traffic.reserve(peers.size());
  for (int const peer : peers) {
    traffic.push_back({peer, {}, 0});
  }
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    for (Transfer const& one : jobs[j].step->*Side) {
      auto const at = std::lower_bound(peers.begin(), peers.end(), one.peer) - peers.begin();
      PeerTraffic& peer = traffic[static_cast<std::size_t>(at)];
      peer.transfers.push_back({j, &one});
      peer.bytes += static_cast<std::size_t>(one.box.volume()) * size_of(jobs[j].dtype);
    }
  }
  return traffic;
}

/// One contiguous message for each pair of ranks, packed and unpacked by strided copies. A message of one contiguous box
/// is sent and received in place.
/// @param meanwhile  is called between packing and sending.
template <MemorySpace Space, class Comm, class Meanwhile>
void exchange_messages(Comm const& comm,
                       std::span<ExchangeJob const> jobs,
                       Staging<Space> const& staging,
                       std::span<PeerTraffic const> sends,
                       std::span<PeerTraffic const> receives,
                       Meanwhile const& meanwhile,
                       Call const& call,
                       typename Space::Stream stream) {
  std::vector<Buffer<Space>> packs;
  std::vector<Message> outgoing;
  std::vector<Message> incoming;

  for (PeerTraffic const& traffic : sends) {
    int const peer = traffic.peer;
    Transfer const& first = *traffic.transfers.front().transfer;
    ExchangeJob const& job = jobs[traffic.transfers.front().job];
    if (traffic.transfers.size() == 1 && is_contiguous(first.box.extent, first.source)) {
      auto const* data =
          static_cast<std::byte const*>(job.source) + byte_offset(first.source, size_of(job.dtype));
      outgoing.push_back({peer, const_cast<std::byte*>(data), traffic.bytes});
      continue;
    }
    auto* data = static_cast<std::byte*>(packs.emplace_back(traffic.bytes, stream).data());
    outgoing.push_back({peer, data, traffic.bytes});
    for (PackedTransfer const& one : traffic.transfers) {
      std::size_t const bytes = size_of(jobs[one.job].dtype);
      Shape const& extent = one.transfer->box.extent;
      copy_own<Space>(copy_between(jobs[one.job].source, one.transfer->source, data, packed(extent),
                                   extent, bytes),
                      jobs[one.job].in_space, stream);
      data += static_cast<std::size_t>(volume(extent)) * bytes;
    }
  }
  meanwhile();

  struct Packed {
    PeerTraffic const* traffic;
    std::byte const* data;
  };
  std::vector<Packed> unpack;  // what arrives in a pack buffer
  for (PeerTraffic const& traffic : receives) {
    int const peer = traffic.peer;
    Transfer const& first = *traffic.transfers.front().transfer;
    std::size_t const j = traffic.transfers.front().job;
    std::size_t const bytes = size_of(jobs[j].dtype);
    if (traffic.transfers.size() == 1 && first.slot >= 0) {
      auto* slot = staging.of(j);
      incoming.push_back(
          {peer, slot + static_cast<std::size_t>(first.slot) * bytes, traffic.bytes});
    } else if (traffic.transfers.size() == 1 && is_contiguous(first.box.extent, first.target)) {
      auto* target = static_cast<std::byte*>(jobs[j].target);
      incoming.push_back({peer, target + byte_offset(first.target, bytes), traffic.bytes});
    } else {
      auto* data = static_cast<std::byte*>(packs.emplace_back(traffic.bytes, stream).data());
      unpack.push_back({&traffic, data});
      incoming.push_back({peer, data, traffic.bytes});
    }
  }

  comm.template exchange<Space>(outgoing, incoming, stream, call);

  for (auto [traffic, data] : unpack) {
    for (PackedTransfer const& one : traffic->transfers) {
      std::size_t const bytes = size_of(jobs[one.job].dtype);
      Transfer arrived = *one.transfer;
      arrived.source = packed(arrived.box.extent);
      copy_own<Space>(copy_of(arrived, data, jobs[one.job].target, staging.of(one.job), bytes),
                      jobs[one.job].in_space, stream);
      data += static_cast<std::size_t>(arrived.box.volume()) * bytes;
    }
  }
}

/// An exchange between ranks that do not see each other's memory.
template <MemorySpace Space, class Comm>
void exchange_packed(Comm const& comm,
                     std::span<ExchangeJob const> jobs,
                     Staging<Space> const& staging,
                     Call const& call,
                     typename Space::Stream stream) {
  auto const sends = by_peer<&RankStep::sends>(jobs);
  auto const receives = by_peer<&RankStep::receives>(jobs);
  auto const copy_own_parts = [&] {
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      copy_locals<Space>(jobs[j], staging.of(j), stream);
    }
  };
  exchange_messages<Space>(comm, jobs, staging, sends, receives, copy_own_parts, call, stream);
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
