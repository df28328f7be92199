// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <source_location>
#include <string>

#include <cuda_runtime_api.h>

#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace cuda {

/// Says that the machine, not the call, lacks something.
[[nodiscard]] constexpr bool is_no_device(cudaError_t status) noexcept {
  return status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver ||
         status == cudaErrorStubLibrary;
}

/// Throws if a call of the CUDA runtime failed, and clears the runtime's record of it, so that it
/// is not reported a second time.
/// @param call name of the function, for the message.
/// @throws DeviceError with the native status.
inline void check(cudaError_t status,
                  char const* call,
                  std::source_location where = std::source_location::current()) {
  if (status == cudaSuccess) {
    return;
  }
  static_cast<void>(cudaGetLastError());
  char const* const remedy =
      is_no_device(status)                  ? "; this machine has no usable GPU, use HostMemory"
      : status == cudaErrorMemoryAllocation ? "; free tensors, or shard them over more devices"
                                            : "";
  throw DeviceError(static_cast<int>(status),
                    std::string("shardmesh: ") + call + " failed: " + cudaGetErrorName(status) +
                        " (" + cudaGetErrorString(status) + ")" + remedy,
                    where);
}

/// Number of devices; 0 without a driver or a GPU.
[[nodiscard]] inline int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return 0;
  }
  return count;
}

}  // namespace cuda
}  // namespace v0
}  // namespace shardmesh
