// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The memory of the stand-in for the CUDA runtime (fake_nccl.hpp): none, unless `fake::device().has_memory`. Then it
// is host memory that processes open by its handle, and work is done at once, by the thread that gives it to a stream. A
// wait for a number keeps that thread as it would keep the stream.

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace fake {

struct Device {
  bool has_memory = false;
  int batches = 0;      ///< of numbers to write and to wait for, given to streams
  int dies_before = 0;  ///< the batch before which the process ends; 0: none
  std::mutex mutex;
  std::map<void*, int> files;  // of memory
};

inline Device& device() {
  static Device instance;
  return instance;
}

inline void* map_file(int file) {
  struct stat status{};
  if (file < 0 || ::fstat(file, &status) != 0) {
    return nullptr;
  }
  void* const memory = ::mmap(nullptr, static_cast<std::size_t>(status.st_size),
                              PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

/// As cuStreamBatchMemOp: waits compare the difference with 0.
inline CUresult CUDAAPI do_batch(CUstream,
                                 unsigned count,
                                 CUstreamBatchMemOpParams* operations,
                                 unsigned) {
  if (++device().batches == device().dies_before) {
    ::raise(SIGKILL);
  }
  for (unsigned i = 0; i < count; ++i) {
    CUstreamBatchMemOpParams const& one = operations[i];
    if (one.operation == CU_STREAM_MEM_OP_WRITE_VALUE_64) {
      auto* const place = reinterpret_cast<std::uint64_t*>(one.writeValue.address);
      std::atomic_ref(*place).store(one.writeValue.value64, std::memory_order_release);
    } else {
      auto* const place = reinterpret_cast<std::uint64_t*>(one.waitValue.address);
      while (static_cast<std::int64_t>(std::atomic_ref(*place).load(std::memory_order_acquire) -
                                       one.waitValue.value64) < 0) {
        std::this_thread::yield();
      }
    }
  }
  return CUDA_SUCCESS;
}

inline cudaError_t entry_point(void** function, cudaDriverEntryPointQueryResult* found) {
  *function = reinterpret_cast<void*>(&do_batch);
  *found = cudaDriverEntryPointSuccess;
  return device().has_memory ? cudaSuccess : cudaErrorNotSupported;
}

}  // namespace fake

extern "C" {

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  if (!fake::device().has_memory) {
    return cudaErrorMemoryAllocation;
  }
  int const file = ::memfd_create("device", MFD_CLOEXEC);
  *pointer = ::ftruncate(file, static_cast<off_t>(bytes)) == 0 ? fake::map_file(file) : nullptr;
  std::lock_guard const lock(fake::device().mutex);
  fake::device().files[*pointer] = file;
  return *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFree(void*) {
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(pointer, bytes);
}
cudaError_t cudaFreeAsync(void*, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t) {
  if (fake::device().has_memory) {
    std::memset(pointer, value, bytes);
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(
    void* to, void const* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (fake::device().has_memory) {
    std::memcpy(to, from, bytes);
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to,
                              std::size_t to_pitch,
                              void const* from,
                              std::size_t from_pitch,
                              std::size_t bytes,
                              std::size_t rows,
                              cudaMemcpyKind,
                              cudaStream_t) {
  for (std::size_t i = 0; i < rows; ++i) {
    std::memcpy(static_cast<std::byte*>(to) + i * to_pitch,
                static_cast<std::byte const*>(from) + i * from_pitch, bytes);
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpy3DAsync(cudaMemcpy3DParms const* all, cudaStream_t stream) {
  for (std::size_t i = 0; i < all->extent.depth; ++i) {
    auto const slice = [i](cudaPitchedPtr const& at) {
      return static_cast<std::byte*>(at.ptr) + i * at.pitch * at.ysize;
    };
    cudaMemcpy2DAsync(slice(all->dstPtr), all->dstPtr.pitch, slice(all->srcPtr), all->srcPtr.pitch,
                      all->extent.width, all->extent.height, cudaMemcpyDefault, stream);
  }
  return cudaSuccess;
}
cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  *id = reinterpret_cast<std::uintptr_t>(stream);
  return cudaSuccess;
}
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* pointer) {
  std::lock_guard const lock(fake::device().mutex);
  std::string const path = "/proc/" + std::to_string(::getpid()) + "/fd/" +
                           std::to_string(fake::device().files[pointer]);
  std::memset(handle->reserved, 0, sizeof(handle->reserved));
  std::memcpy(handle->reserved, path.data(), path.size());
  return fake::device().has_memory ? cudaSuccess : cudaErrorNotSupported;
}
cudaError_t cudaIpcOpenMemHandle(void** pointer, cudaIpcMemHandle_t handle, unsigned) {
  int const file = ::open(handle.reserved, O_RDWR | O_CLOEXEC);
  *pointer = fake::map_file(file);
  ::close(file);
  return *pointer == nullptr ? cudaErrorInvalidValue : cudaSuccess;
}
cudaError_t cudaHostRegister(void*, std::size_t, unsigned) {
  return fake::device().has_memory ? cudaSuccess : cudaErrorNotSupported;
}
cudaError_t cudaHostUnregister(void*) {
  return cudaSuccess;
}
#if CUDART_VERSION >= 12050
cudaError_t cudaGetDriverEntryPointByVersion(char const*,
                                             void** function,
                                             unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  return fake::entry_point(function, found);
}
#else
cudaError_t cudaGetDriverEntryPoint(char const*,
                                    void** function,
                                    unsigned long long,
                                    cudaDriverEntryPointQueryResult* found) {
  return fake::entry_point(function, found);
}
#endif

}  // extern "C"
