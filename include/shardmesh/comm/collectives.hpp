// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/reduce_op.hpp>

namespace shardmesh {
inline namespace v0 {

// What an engine may offer beyond `Communicator`: collectives of its own on memory of a space, each a
// capability that a template can ask for. All are ordered on the stream and collective; counts are
// elements of each rank. `redistribute` needs none of them.

/// receive[i] = op over all ranks' send[i].
template <class C, class Space>
concept HasAllReduce = Communicator<C> && requires(C const& comm,
                                                   void const* send,
                                                   void* receive,
                                                   std::size_t count,
                                                   typename Space::Stream stream) {
  comm.template all_reduce<Space>(DType{}, ReduceOp{}, send, receive, count, stream);
};

/// receive[i] = op over all ranks' send[rank * count + i].
template <class C, class Space>
concept HasReduceScatter = Communicator<C> && requires(C const& comm,
                                                       void const* send,
                                                       void* receive,
                                                       std::size_t count,
                                                       typename Space::Stream stream) {
  comm.template reduce_scatter<Space>(DType{}, ReduceOp{}, send, receive, count, stream);
};

/// Every rank's elements, by rank.
template <class C, class Space>
concept HasAllGather = Communicator<C> && requires(C const& comm,
                                                   void const* send,
                                                   void* receive,
                                                   std::size_t count,
                                                   typename Space::Stream stream) {
  comm.template all_gather<Space>(DType{}, send, receive, count, stream);
};

/// The elements of one rank, on all.
template <class C, class Space>
concept HasBroadcast = Communicator<C> && requires(C const& comm,
                                                   void const* send,
                                                   void* receive,
                                                   std::size_t count,
                                                   int root,
                                                   typename Space::Stream stream) {
  comm.template broadcast<Space>(DType{}, send, receive, count, root, stream);
};

}  // namespace v0
}  // namespace shardmesh
