// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/range.hpp>
#include <shardmesh/plan/transfer.hpp>
#include <shardmesh/tensor/detail/exchange_packed.hpp>
#include <shardmesh/tensor/detail/exchange_reached.hpp>
#include <shardmesh/tensor/detail/exchange_shared.hpp>
#include <shardmesh/tensor/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {

/// Runs one exchange: this rank's step of each job, all jobs as one fused exchange.
///
/// Where ranks share an address space (`threads`), the owner of a box copies it straight into its
/// place in the receiver's tensor, strided on both sides, without packing; so do processes of one host in the
/// memory of their GPUs (`NcclCommunicator::peer_push`). Elsewhere each pair of ranks exchanges one message. Terms of a reduction are collected and added in ascending rank
/// order, so results are equal bit for bit on every rank, in every run and on every engine.
///
/// @param call   the operation, and what must be the same on all ranks: ranks that bring another get
///               a MismatchError instead of a wrong result (see `Call`).
/// @param stream all device work is ordered on it; the host does not wait for the device.
/// @collective over `comm`.
template <MemorySpace Space, Communicator Comm>
void execute(Comm const& comm,
             std::span<ExchangeJob const> jobs,
             Call const& call,
             typename Space::Stream stream = {}) {
  static_assert(Comm::template moves<Space>,
                "shardmesh::execute: this communicator cannot move tensors of this memory space; "
                "sockets move host memory, NCCL and threads move host and device memory");
  detail::Range const range(call.operation());
  detail::Staging<Space> const staging(jobs, stream);
  if constexpr (Comm::shared_address_space) {
    detail::exchange_shared<Space>(comm, jobs, staging, call, stream);
  } else if constexpr (requires { comm.template peer_push<Space>(); }) {
    detail::exchange_reached<Space>(comm, jobs, staging, call, stream);
  } else {
    detail::exchange_packed<Space>(comm, jobs, staging, call, stream);
  }
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    detail::reduce_terms<Space>(jobs[j], staging.of(j), stream);
  }
}

}  // namespace v0
}  // namespace shardmesh
