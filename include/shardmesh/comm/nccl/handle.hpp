// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <source_location>
#include <string>
#include <utility>

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <shardmesh/core/error.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/stream.hpp>

namespace shardmesh::inline v0::nccl {

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

/// Waits until a non-blocking communicator has done what it was last asked to.
/// @throws CommError, TimeoutError
inline void wait_ready(ncclComm_t comm, char const* call, std::chrono::milliseconds timeout) {
  auto const deadline = std::chrono::steady_clock::now() + timeout;
  ncclResult_t status = ncclInProgress;
  while (status == ncclInProgress) {
    check(ncclCommGetAsyncError(comm, &status), "ncclCommGetAsyncError", comm);
    if (status == ncclInProgress) {
      if (std::chrono::steady_clock::now() > deadline) {
        throw TimeoutError(std::string("shardmesh: ") + call + " did not finish within " +
                           std::to_string(timeout.count()) +
                           " ms; look whether all ranks are there and reach each other");
      }
      ::usleep(20);
    }
  }
  check(status, call, comm);
}

/// Owns a communicator of NCCL. While an exception is on its way, and where an orderly end takes too
/// long, the communicator is aborted: nobody waits for ranks that are gone.
class Handle {
 public:
  Handle(ncclComm_t comm, std::chrono::milliseconds timeout)
      : comm_(comm), timeout_(timeout), exceptions_(std::uncaught_exceptions()) {}
  Handle(Handle const&) = delete;
  Handle& operator=(Handle const&) = delete;
  ~Handle() {
    if (std::uncaught_exceptions() > exceptions_ || !finalize()) {
      ncclCommAbort(comm_);
    } else {
      ncclCommDestroy(comm_);
    }
  }

  [[nodiscard]] ncclComm_t get() const noexcept { return comm_; }

 private:
  [[nodiscard]] bool finalize() const noexcept {
    try {
      check(ncclCommFinalize(comm_), "ncclCommFinalize", comm_);
      wait_ready(comm_, "ncclCommFinalize", timeout_);
      return true;
    } catch (...) {
      return false;
    }
  }

  ncclComm_t comm_;
  std::chrono::milliseconds timeout_;
  int exceptions_;
};

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
    ncclResult_t const status = ncclGroupEnd();
    if (std::uncaught_exceptions() == exceptions_) {
      check(status, "ncclGroupEnd", comm_);
    }
  }

 private:
  ncclComm_t comm_;
  int exceptions_;
};

}  // namespace shardmesh::inline v0::nccl
