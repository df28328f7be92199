// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cuda_runtime_api.h>

#include <shardmesh/comm/limits.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/memory/cuda/device.hpp>
#include <shardmesh/memory/cuda/device_pool.hpp>

namespace shardmesh {
inline namespace v0 {

/// Ranks as threads of one process, each with a device: rank r on device r modulo the number of
/// devices. Any number of ranks shares a GPU, so that a 2 x 2 mesh runs on one.
struct threads_on_devices {
  int ranks = 1;
  /// How long a rank waits for the others before it gives up.
  Limits timeout = {};
};

/// Runs `body(communicator)` on every rank, each a thread of this process with its device current,
/// and waits for all.
/// @throws DeviceError if there is no GPU; else what the first failing rank threw.
template <class Body>
void launch(threads_on_devices const& options, Body&& body) {
  cuda::prepare_process();
  int const devices = cuda::device_count();
  if (devices == 0) {
    throw DeviceError(
        cudaErrorNoDevice,
        "shardmesh::launch: threads_on_devices finds no usable GPU; check nvidia-smi, "
        "or use threads{n} with tensors in host memory");
  }
  cuda::connect_devices(devices);
  cuda::UseDevicePool const pool;
  detail::run_threads({options.ranks, options.timeout},
                      [&](int rank, ThreadsCommunicator& communicator) {
                        cuda::check(cudaSetDevice(rank % devices), "cudaSetDevice");
                        body(communicator);
                        CudaStream{}.synchronize();
                      });
}

}  // namespace v0
}  // namespace shardmesh
