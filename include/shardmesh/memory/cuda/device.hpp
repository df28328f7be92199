// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <cstdlib>

#include <cuda_runtime_api.h>

#include <shardmesh/memory/cuda/check.hpp>

namespace shardmesh {
inline namespace v0 {
namespace cuda {

/// Makes CUDA load kernels when it starts instead of when they are first called: loading one takes
/// the lock of the device's context and may wait for a kernel that runs, which may itself wait for
/// this rank. What the user has set stands. Has no effect after the first call of CUDA.
inline void prepare_process() {
  ::setenv("CUDA_MODULE_LOADING", "EAGER", 0);
}

/// Lets the pool of a device keep what is freed, so that a steady state allocates nothing.
/// @throws DeviceError
inline void keep_freed_memory(int device) {
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
  std::uint64_t keep = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
        "cudaMemPoolSetAttribute");
}

/// Lets `device` be read and written by `peer`, allocations of its pool included, where the hardware
/// can.
/// @pre `device` is current.
/// @throws DeviceError
inline void open_to_peer(int device, int peer) {
  int reachable = 0;
  check(cudaDeviceCanAccessPeer(&reachable, peer, device), "cudaDeviceCanAccessPeer");
  if (reachable == 0) {
    return;
  }
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
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

/// Prepares all devices for ranks that share an address space.
/// @throws DeviceError
inline void connect_devices(int devices) {
  for (int device = 0; device < devices; ++device) {
    check(cudaSetDevice(device), "cudaSetDevice");
    keep_freed_memory(device);
    for (int peer = 0; peer < devices; ++peer) {
      if (peer != device) {
        open_to_peer(device, peer);
      }
    }
  }
}

}  // namespace cuda
}  // namespace v0
}  // namespace shardmesh
