// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>
#include <exception>
#include <source_location>
#include <string>

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <shardmesh/core/error.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/stream.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// Throws if a call of NCCL failed. "In progress" is no failure.
/// @param call name of the function; `comm` adds NCCL's own words, if there is one.
/// @throws CommError
inline void check(ncclResult_t status,
                  char const* call,
                  ncclComm_t comm = nullptr,
                  std::source_location where = std::source_location::current()) {
  if (status == ncclSuccess || status == ncclInProgress) {
    return;
  }
  throw CommError(std::string("shardmesh: ") + call + " failed: " + ncclGetErrorString(status) +
                      " (" + ncclGetLastError(comm) + ")",
                  where);
}

/// Asks `poll()` for the state of a non-blocking communicator until it has done what it was last
/// asked to.
/// @throws CommError, TimeoutError
template <class Poll>
void wait_ready(Poll&& poll, char const* call, std::chrono::milliseconds timeout) {
  auto const deadline = std::chrono::steady_clock::now() + timeout;
  for (ncclResult_t status = poll(); status != ncclSuccess; status = poll()) {
    check(status, call);
    if (std::chrono::steady_clock::now() > deadline) {
      throw TimeoutError(std::string("shardmesh: ") + call + " did not finish within " +
                         std::to_string(timeout.count()) +
                         " ms; look whether all ranks are there and reach each other");
    }
    ::usleep(20);
  }
}

/// A stream of its own, for callers whose stream is one of CUDA's special handles. A non-blocking
/// communicator launches from a thread of NCCL, where `cudaStreamPerThread` is another stream.
class SideStream {
 public:
  SideStream() {
    cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                "cudaStreamCreateWithFlags");
  }
  SideStream(SideStream const&) = delete;
  SideStream& operator=(SideStream const&) = delete;
  ~SideStream() { cudaStreamDestroy(stream_); }

  [[nodiscard]] cudaStream_t get() const noexcept { return stream_; }

  /// Work of this stream from here on follows what `caller` has been given so far.
  void follow(CudaStream caller) { order(caller.handle, stream_, before_); }
  /// Work of `caller` from here on follows what this stream has been given so far.
  void precede(CudaStream caller) { order(stream_, caller.handle, after_); }

 private:
  static void order(cudaStream_t first, cudaStream_t second, CudaEvent const& event) {
    cuda::check(cudaEventRecord(event.native_handle(), first), "cudaEventRecord");
    cuda::check(cudaStreamWaitEvent(second, event.native_handle(), 0), "cudaStreamWaitEvent");
  }

  cudaStream_t stream_ = nullptr;
  CudaEvent before_;
  CudaEvent after_;
};

/// Opens a group of NCCL calls and closes it, quietly while an exception is on its way.
class Group {
 public:
  explicit Group(ncclComm_t comm) : comm_(comm), exceptions_(std::uncaught_exceptions()) {
    check(ncclGroupStart(), "ncclGroupStart");
  }
  Group(Group const&) = delete;
  Group& operator=(Group const&) = delete;
  ~Group() noexcept(false) {
    if (open_) {
      ncclResult_t const status = ncclGroupEnd();
      if (std::uncaught_exceptions() == exceptions_) {
        check(status, "ncclGroupEnd", comm_);
      }
    }
  }

  /// Gives the calls to the device.
  /// @returns what NCCL says: success, or in progress if the communicator does not block.
  [[nodiscard]] ncclResult_t end() {
    open_ = false;
    return ncclGroupEnd();
  }

 private:
  ncclComm_t comm_;
  int exceptions_;
  bool open_ = true;
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
