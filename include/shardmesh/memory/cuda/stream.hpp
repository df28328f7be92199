// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <memory>
#include <type_traits>

#include <cuda_runtime_api.h>

#include <shardmesh/memory/cuda/check.hpp>

namespace shardmesh {
inline namespace v0 {

/// The order of work on a device: a non-owning handle of a CUDA stream. The default is the calling
/// thread's own stream, so that ranks that are threads do not wait for each other.
struct CudaStream {
  cudaStream_t handle = cudaStreamPerThread;

  /// Waits until all work of the stream is done.
  /// @throws DeviceError
  void synchronize() const { cuda::check(cudaStreamSynchronize(handle), "cudaStreamSynchronize"); }
};

/// Owns a stream of the current device that does not wait for the default stream.
class CudaOwnedStream {
 public:
  /// @throws DeviceError
  CudaOwnedStream() {
    cudaStream_t stream = nullptr;
    cuda::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                "cudaStreamCreateWithFlags");
    handle_.reset(stream);
  }

  [[nodiscard]] CudaStream get() const noexcept { return {handle_.get()}; }

 private:
  struct Destroy {
    void operator()(cudaStream_t stream) const noexcept { cudaStreamDestroy(stream); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaStream_t>, Destroy> handle_;
};

/// A point in a stream that other streams, of other devices too, can wait for.
class CudaEvent {
 public:
  /// @throws DeviceError
  CudaEvent() {
    cudaEvent_t event = nullptr;
    cuda::check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                "cudaEventCreateWithFlags");
    handle_.reset(event);
  }

  [[nodiscard]] cudaEvent_t native_handle() const noexcept { return handle_.get(); }

 private:
  struct Destroy {
    void operator()(cudaEvent_t event) const noexcept { cudaEventDestroy(event); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, Destroy> handle_;
};

}  // namespace v0
}  // namespace shardmesh
