// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <compare>
#include <cstddef>
#include <map>
#include <mutex>
#include <optional>

#include <cuda_runtime_api.h>

#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/memory/cuda/stream.hpp>
#include <shardmesh/memory/resource.hpp>
#include <shardmesh/memory/segment_pool.hpp>

namespace shardmesh {
inline namespace v0 {
namespace cuda {

/// Segments of device memory from cudaMalloc, which other processes can open.
struct DeviceSegments {
  /// A stream, by the number that no other stream of the process ever has.
  struct Queue {
    int place = 0;  ///< the device
    unsigned long long id = 0;
    cudaStream_t stream = nullptr;
    auto operator<=>(Queue const& other) const noexcept {
      return place != other.place ? place <=> other.place : id <=> other.id;
    }
    bool operator==(Queue const& other) const noexcept {
      return place == other.place && id == other.id;
    }
  };
  using Mark = CudaEvent;

  [[nodiscard]] static void* obtain(std::size_t bytes) noexcept {
    void* pointer = nullptr;
    if (cudaMalloc(&pointer, bytes) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return nullptr;
    }
    return pointer;
  }
  static void give_back(void* pointer) noexcept { static_cast<void>(cudaFree(pointer)); }
  static void mark(Mark& mark, Queue queue) noexcept {
    // A failure here has been, or will be, seen elsewhere.
    int current = queue.place;
    static_cast<void>(cudaGetDevice(&current));
    if (current != queue.place) {
      static_cast<void>(cudaSetDevice(queue.place));
    }
    static_cast<void>(cudaEventRecord(mark.native_handle(), queue.stream));
    static_cast<void>(cudaGetLastError());
    if (current != queue.place) {
      static_cast<void>(cudaSetDevice(current));
    }
  }
  [[nodiscard]] static bool has_passed(Mark const& mark) noexcept {
    bool const passed = cudaEventQuery(mark.native_handle()) == cudaSuccess;
    static_cast<void>(cudaGetLastError());  // "not ready" is no failure
    return passed;
  }
  static void finish() { check(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }
};

/// Device memory of which any part can be shown to other processes of the host: what lies where in it stays there.
/// Used in place of CUDA's own pool where ranks are processes (docs/decisions/0020): a block is had and given back in
/// less time, too. Segments are kept for the rest of the process.
class DevicePool : public MemoryResource<CudaMemory> {
 public:
  /// @throws DeviceError if there is no memory.
  [[nodiscard]] void* allocate(std::size_t bytes, std::size_t, Stream stream) override {
    CudaMemory::prepare_host();
    void* const pointer = pool_.allocate(bytes, queue_of(CudaMemory::current_device(), stream));
    if (pointer == nullptr) {
      check(cudaErrorMemoryAllocation, "cudaMalloc");
    }
    return pointer;
  }
  void deallocate(void* pointer, std::size_t, std::size_t, Stream stream) noexcept override {
    int device = 0;
    static_cast<void>(cudaGetDevice(&device));
    pool_.deallocate(pointer, queue_of(device, stream));
  }

  /// A part of device memory, in words that another process understands.
  struct Shown {
    cudaIpcMemHandle_t segment{};
    std::size_t offset = 0;
  };

  /// @returns nothing if the memory is not the pool's, or the system does not share it.
  [[nodiscard]] std::optional<Shown> show(void const* pointer) {
    auto const place = pool_.locate(pointer);
    if (!place) {
      return std::nullopt;
    }
    std::lock_guard const lock(mutex_);
    auto at = handles_.find(place->segment);
    if (at == handles_.end()) {
      cudaIpcMemHandle_t handle{};
      if (cudaIpcGetMemHandle(&handle, place->segment) != cudaSuccess) {
        static_cast<void>(cudaGetLastError());
        return std::nullopt;
      }
      at = handles_.emplace(place->segment, handle).first;
    }
    return Shown{at->second, place->offset};
  }

  /// Waits for the current device, and gives back to CUDA what nobody uses there, but for segments of which other
  /// processes may know.
  /// @throws DeviceError
  void trim() { pool_.trim(queue_of(CudaMemory::current_device(), {})); }

  /// Bytes in use on a device.
  [[nodiscard]] std::size_t used(int device) const { return pool_.used(device); }
  /// The most that were in use there since the last call.
  [[nodiscard]] std::size_t take_peak(int device) { return pool_.take_peak(device); }
  /// Bytes obtained from CUDA, on all devices.
  [[nodiscard]] std::size_t obtained() const { return pool_.obtained(); }

 private:
  [[nodiscard]] static DeviceSegments::Queue queue_of(int device, CudaStream stream) noexcept {
    DeviceSegments::Queue queue{device, 0, stream.handle};
    static_cast<void>(cudaStreamGetId(stream.handle, &queue.id));
    return queue;
  }

  SegmentPool<DeviceSegments> pool_;
  std::mutex mutex_;
  std::map<void*, cudaIpcMemHandle_t> handles_;  // by segment
};

/// The pool of the process. It lives as long: memory of it may be given back by whatever is destroyed last.
[[nodiscard]] inline DevicePool& device_pool() {
  static DevicePool* const pool = new DevicePool;
  return *pool;
}

/// While it lives, device memory comes from the pool, unless the program has said where from (`UseResource`).
class UseDevicePool {
 public:
  UseDevicePool() : use_(chosen()) {}

 private:
  [[nodiscard]] static MemoryResource<CudaMemory>& chosen() {
    MemoryResource<CudaMemory>* const resource = detail::resource_in_use<CudaMemory>();
    return resource == nullptr ? device_pool() : *resource;
  }

  UseResource<CudaMemory> use_;
};

}  // namespace cuda
}  // namespace v0
}  // namespace shardmesh
