// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>
#include <cstdint>

#include <cuda_runtime_api.h>

#include <shardmesh/comm/threads.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>

namespace shardmesh::inline v0 {

/// Ranks as threads of one process, each with a device: rank r on device r modulo the number of
/// devices. Any number of ranks shares a GPU, so that a 2 x 2 mesh runs on one.
struct threads_on_devices {
  int ranks = 1;
  /// How long a rank waits for the others before it gives up.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

namespace cuda {

/// Lets every device read and write the memory of the others (where the hardware can), and keeps
/// freed memory in the pools, so that a steady state allocates nothing.
inline void connect_devices(int devices) {
  for (int device = 0; device < devices; ++device) {
    check(cudaSetDevice(device), "cudaSetDevice");
    cudaMemPool_t pool = nullptr;
    check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
    std::uint64_t keep = UINT64_MAX;
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
          "cudaMemPoolSetAttribute");
    for (int peer = 0; peer < devices; ++peer) {
      int reachable = 0;
      check(cudaDeviceCanAccessPeer(&reachable, peer, device), "cudaDeviceCanAccessPeer");
      if (peer == device || reachable == 0) {
        continue;
      }
      cudaMemAccessDesc access{};
      access.location.type = cudaMemLocationTypeDevice;
      access.location.id = peer;
      access.flags = cudaMemAccessFlagsProtReadWrite;
      check(cudaMemPoolSetAccess(pool, &access, 1), "cudaMemPoolSetAccess");
      cudaError_t const status = cudaDeviceEnablePeerAccess(peer, 0);
      if (status != cudaErrorPeerAccessAlreadyEnabled) {
        check(status, "cudaDeviceEnablePeerAccess");
      }
      static_cast<void>(cudaGetLastError());  // "already enabled" is no error
    }
  }
}

}  // namespace cuda

/// Runs `body(communicator)` on every rank, each a thread of this process with its device current,
/// and waits for all.
/// @throws DeviceError if there is no GPU; else what the first failing rank threw.
template <class Body>
void launch(threads_on_devices const& options, Body&& body) {
  int const devices = cuda::device_count();
  if (devices == 0) {
    throw DeviceError(
        cudaErrorNoDevice,
        "shardmesh::launch: threads_on_devices finds no usable GPU; check nvidia-smi, "
        "or use threads{n} with tensors in host memory");
  }
  cuda::connect_devices(devices);
  detail::run_threads({options.ranks, options.timeout},
                      [&](int rank, ThreadsCommunicator& communicator) {
                        cuda::check(cudaSetDevice(rank % devices), "cudaSetDevice");
                        body(communicator);
                        CudaStream{}.synchronize();
                      });
}

}  // namespace shardmesh::inline v0
