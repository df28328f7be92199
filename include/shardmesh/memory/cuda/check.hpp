// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <source_location>
#include <string>

#include <cuda_runtime_api.h>

#include <shardmesh/core/error.hpp>

namespace shardmesh::inline v0::cuda {

/// Throws if a call of the CUDA runtime failed.
/// @param call name of the function, for the message.
/// @throws DeviceError with the native status.
inline void check(cudaError_t status,
                  char const* call,
                  std::source_location where = std::source_location::current()) {
  if (status == cudaSuccess) {
    return;
  }
  bool const no_device = status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver;
  throw DeviceError(static_cast<int>(status),
                    std::string("shardmesh: ") + call + " failed: " + cudaGetErrorName(status) +
                        " (" + cudaGetErrorString(status) + ")" +
                        (no_device ? "; this machine has no usable GPU, use HostMemory" : ""),
                    where);
}

/// Number of devices; 0 without a driver or a GPU.
[[nodiscard]] inline int device_count() noexcept {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

}  // namespace shardmesh::inline v0::cuda
