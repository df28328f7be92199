// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include "counted.hpp"

namespace test {
Counts counts;
}  // namespace test

// The names are the linker's: --wrap=f turns calls of f into calls of __wrap_f, and __real_f is f.
extern "C" {

cudaError_t __real_cudaStreamSynchronize(cudaStream_t stream);
cudaError_t __real_cudaDeviceSynchronize();
cudaError_t __real_cudaEventSynchronize(cudaEvent_t event);
cudaError_t __real_cudaMalloc(void** pointer, std::size_t bytes);
cudaError_t __real_cudaFree(void* pointer);
cudaError_t __real_cudaHostAlloc(void** pointer, std::size_t bytes, unsigned flags);
cudaError_t __real_cudaHostRegister(void* pointer, std::size_t bytes, unsigned flags);

cudaError_t __wrap_cudaStreamSynchronize(cudaStream_t stream) {
  ++test::counts.waits;
  return __real_cudaStreamSynchronize(stream);
}
cudaError_t __wrap_cudaDeviceSynchronize() {
  ++test::counts.waits;
  return __real_cudaDeviceSynchronize();
}
cudaError_t __wrap_cudaEventSynchronize(cudaEvent_t event) {
  ++test::counts.waits;
  return __real_cudaEventSynchronize(event);
}
cudaError_t __wrap_cudaMalloc(void** pointer, std::size_t bytes) {
  ++test::counts.allocations;
  return __real_cudaMalloc(pointer, bytes);
}
cudaError_t __wrap_cudaFree(void* pointer) {
  ++test::counts.waits;  // it waits for the device
  return __real_cudaFree(pointer);
}
cudaError_t __wrap_cudaHostAlloc(void** pointer, std::size_t bytes, unsigned flags) {
  ++test::counts.allocations;
  return __real_cudaHostAlloc(pointer, bytes, flags);
}
cudaError_t __wrap_cudaHostRegister(void* pointer, std::size_t bytes, unsigned flags) {
  ++test::counts.allocations;
  return __real_cudaHostRegister(pointer, bytes, flags);
}

}  // extern "C"
