// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>

#include <shardmesh/comm/mpi/launch.hpp>
#include <shardmesh/comm/nccl/launch.hpp>

namespace shardmesh {
inline namespace v0 {

/// One rank a process, started by mpirun; device memory by NCCL, all else by MPI.
struct nccl_mpi {
  bool share_devices = false;  ///< as in nccl_environment
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
  Checks checks = Checks::watched;  ///< how closely ranks compare their calls
};

/// Runs `body(communicator)` as the rank that mpirun made this process. The device is the one of its
/// place among the ranks on its host. MPI is treated as in launch(mpi).
/// @throws what the body throws, after telling the other ranks.
template <class Body>
void launch(nccl_mpi const& options, Body&& body) {
  cuda::prepare_process();  // an MPI that knows CUDA may be the first to call it
  detail::run_mpi_rank(options.timeout, [&](MpiCommunicator& control) {
    detail::MpiLocalPlace const local = detail::local_place(control);
    detail::take_device(control.rank(), local.rank, local.size,
                        detail::share_devices_wanted(options.share_devices));
    cuda::UseDevicePool const pool;
    detail::run_nccl_rank(control, options, body);
  });
}

}  // namespace v0
}  // namespace shardmesh
