// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>

#include <cuda_runtime_api.h>

#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/nccl/communicator.hpp>
#include <shardmesh/comm/sockets.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/memory/cuda/device.hpp>
#include <shardmesh/memory/cuda/device_pool.hpp>

namespace shardmesh {
inline namespace v0 {

/// Ranks as threads of one process, a GPU each, data by NCCL.
struct nccl_threads {
  int ranks = 1;
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
  Checks checks = Checks::watched;  ///< how closely ranks compare their calls
};

/// One rank a process, started by a launcher, data by NCCL. The device is the local rank's.
struct nccl_environment {
  /// Lets several ranks share a GPU, for development: NCCL is told that they are on different
  /// hosts, so everything goes through sockets and timings mean nothing. The variable
  /// SHARDMESH_SHARE_DEVICES=1 does the same.
  bool share_devices = false;
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
  Checks checks = Checks::watched;  ///< how closely ranks compare their calls
};

namespace detail {

inline void require_devices(int ranks, int devices) {
  if (devices == 0) {
    throw DeviceError(cudaErrorNoDevice,
                      "shardmesh::launch: NCCL needs a GPU, and none is usable here; check "
                      "nvidia-smi, or use threads{n} with tensors in host memory");
  }
  if (ranks > devices) {
    throw InvalidArgument("shardmesh::launch: " + std::to_string(ranks) + " ranks on " +
                          std::to_string(devices) +
                          " GPU(s): NCCL refuses two ranks on one GPU (\"Duplicate GPU "
                          "detected\"). For development use threads_on_devices, or processes with "
                          "nccl_environment{.share_devices = true} (SHARDMESH_SHARE_DEVICES=1)");
  }
}

[[nodiscard]] inline bool share_devices_wanted(bool option) {
  char const* const text = std::getenv("SHARDMESH_SHARE_DEVICES");
  return option || (text != nullptr && std::string(text) == "1");
}

/// Makes the device of a process current, before the first NCCL call.
/// @param share lets ranks have the same one.
inline void take_device(int rank, int local_rank, int local_size, bool share) {
  cuda::prepare_process();
  if (share) {
    ::setenv("NCCL_HOSTID", ("shardmesh-rank-" + std::to_string(rank)).c_str(), 1);
    if (rank == 0) {
      say(LogLevel::warning, [] {
        return std::string("shardmesh: ranks share GPUs through sockets; timings mean nothing");
      });
    }
  }
  int const devices = cuda::device_count();
  require_devices(share ? 1 : local_size, devices);
  int const device = local_rank % devices;
  cuda::check(cudaSetDevice(device), "cudaSetDevice");
  cuda::keep_freed_memory(device);
}

/// The body of one rank; the other ranks hear of its failure.
template <class Control, class Options, class Body>
void run_nccl_rank(Control const& control, Options const& options, Body& body) {
  NcclCommunicator<Control> world(control, options.timeout, options.checks);
  try {
    body(world);
    CudaStream{}.synchronize();
    world.barrier("end of launch");
  } catch (std::exception const& error) {
    world.report_failure(error.what());
    throw;
  }
}

}  // namespace detail

/// Runs `body(communicator)` on every rank, each a thread of this process with a GPU of its own.
/// @throws InvalidArgument if there are more ranks than GPUs, DeviceError if there is none; else
///         what the first failing rank threw.
template <class Body>
void launch(nccl_threads const& options, Body&& body) {
  cuda::prepare_process();
  detail::require_devices(options.ranks, cuda::device_count());
  cuda::UseDevicePool const pool;
  detail::run_threads({options.ranks, options.timeout},
                      [&](int rank, ThreadsCommunicator& control) {
                        cuda::check(cudaSetDevice(rank), "cudaSetDevice");
                        cuda::keep_freed_memory(rank);
                        detail::run_nccl_rank(control, options, body);
                      });
}

/// Runs `body(communicator)` as the rank that the launcher made this process.
/// @throws what the body throws, after telling the other ranks.
template <class Body>
void launch(nccl_environment const& options, Body&& body) {
  Environment const place = read_environment();
  detail::take_device(place.rank, place.local_rank, place.local_size,
                      detail::share_devices_wanted(options.share_devices));
  cuda::UseDevicePool const pool;
  SocketCommunicator control = detail::connect(place, options.timeout);
  try {
    detail::run_nccl_rank(control, options, body);
  } catch (std::exception const& error) {
    control.report_failure(error.what());
    throw;
  }
}

}  // namespace v0
}  // namespace shardmesh
