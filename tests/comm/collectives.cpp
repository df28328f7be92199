// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/collectives.hpp>

#include <concepts>
#include <cstddef>

#include <shardmesh/comm/sockets.hpp>
#include <shardmesh/comm/threads.hpp>

namespace collectives_test {

namespace sm = shardmesh;

namespace {

/// A memory space of the tests, as far as the concepts look at it.
struct Elsewhere {
  struct Stream {};
};

/// An engine with all capabilities in one space, and nothing but them.
struct Able : sm::ThreadsCommunicator {
  Able() = default;
  [[nodiscard]] Able split(int, int, sm::Call const& = "split") const { return {}; }
  template <class Space>
    requires std::same_as<Space, Elsewhere>
  void all_reduce(
      sm::DType, sm::ReduceOp, void const*, void*, std::size_t, typename Space::Stream) const {}
  template <class Space>
    requires std::same_as<Space, Elsewhere>
  void reduce_scatter(
      sm::DType, sm::ReduceOp, void const*, void*, std::size_t, typename Space::Stream) const {}
  using sm::ThreadsCommunicator::all_gather;
  template <class Space>
    requires std::same_as<Space, Elsewhere>
  void all_gather(sm::DType, void const*, void*, std::size_t, typename Space::Stream) const {}
  template <class Space>
    requires std::same_as<Space, Elsewhere>
  void broadcast(sm::DType, void const*, void*, std::size_t, int, typename Space::Stream) const {}
};

/// No engine: the collectives alone.
struct NoCommunicator {
  template <class Space>
  void broadcast(sm::DType, void const*, void*, std::size_t, int, typename Space::Stream) const {}
};

}  // namespace

static_assert(sm::Communicator<Able>);
static_assert(sm::HasAllReduce<Able, Elsewhere> && !sm::HasAllReduce<Able, sm::HostMemory>);
static_assert(sm::HasReduceScatter<Able, Elsewhere> && !sm::HasReduceScatter<Able, sm::HostMemory>);
static_assert(sm::HasAllGather<Able, Elsewhere> && !sm::HasAllGather<Able, sm::HostMemory>);
static_assert(sm::HasBroadcast<Able, Elsewhere> && !sm::HasBroadcast<Able, sm::HostMemory>);
static_assert(!sm::HasBroadcast<NoCommunicator, Elsewhere>);

// Threads and sockets have none: redistribute moves their data.
static_assert(!sm::HasAllReduce<sm::ThreadsCommunicator, sm::HostMemory>);
static_assert(!sm::HasReduceScatter<sm::ThreadsCommunicator, sm::HostMemory>);
static_assert(!sm::HasAllGather<sm::ThreadsCommunicator, sm::HostMemory>);
static_assert(!sm::HasBroadcast<sm::SocketCommunicator, sm::HostMemory>);

}  // namespace collectives_test
