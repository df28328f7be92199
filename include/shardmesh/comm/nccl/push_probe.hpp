// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>

#include <cuda_runtime_api.h>

#include <shardmesh/comm/detail/host.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/fingerprint.hpp>
#include <shardmesh/memory/buffer.hpp>
#include <shardmesh/memory/cuda/device_pool.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// An address in another process.
struct PeerSpot {
  cuda::DevicePool::Shown place;
  bool there = false;
};

/// @returns whether it can be said: nothing can of memory that is not the pool's. nullptr can.
[[nodiscard]] inline bool show_spot(void const* pointer, PeerSpot& spot) {
  spot.there = pointer != nullptr;
  if (!spot.there) {
    return true;
  }
  auto const place = cuda::device_pool().show(pointer);
  spot.place = place.value_or(cuda::DevicePool::Shown{});
  return place.has_value();
}

/// The address in this process. A segment is opened once, and stays.
/// @throws DeviceError
[[nodiscard]] inline void* open_spot(PeerSpot const& spot) {
  using Key = std::array<char, sizeof(cudaIpcMemHandle_t)>;
  static std::mutex mutex;
  static std::map<Key, void*> opened;
  if (!spot.there) {
    return nullptr;
  }
  Key key;
  std::memcpy(key.data(), &spot.place.segment, key.size());
  std::lock_guard const lock(mutex);
  auto at = opened.find(key);
  if (at == opened.end()) {
    void* start = nullptr;
    cuda::check(cudaIpcOpenMemHandle(&start, spot.place.segment, cudaIpcMemLazyEnablePeerAccess),
                "cudaIpcOpenMemHandle");
    at = opened.emplace(key, start).first;
  }
  return static_cast<std::byte*>(at->second) + spot.place.offset;
}

/// What a rank brings to the making of a group.
struct PushOffer {
  std::uint64_t host = 0;
  std::uint64_t least = 0;
  bool ready = false;
  cuda::DevicePool::Shown memory;
};

/// A little device memory into which the others write when a group is made.
class PushProbe {
 public:
  explicit PushProbe(bool wanted) {
    if (!wanted) {
      return;
    }
    try {
      memory_.emplace(bytes, CudaStream{});
      CudaMemory::fill_zero(memory_->data(), bytes);
      CudaStream{}.synchronize();
      shown_ = cuda::device_pool().show(memory_->data());
    } catch (Error const&) {  // then not
    }
  }
  [[nodiscard]] PushOffer offer(std::size_t least) const {
    return {detail::host_id(), least, shown_.has_value(),
            shown_.value_or(cuda::DevicePool::Shown{})};
  }
  [[nodiscard]] static bool write(PushOffer const& to, int seat) noexcept {
    if (seat >= most) {
      return false;
    }
    try {
      auto* const there = static_cast<std::byte*>(open_spot(PeerSpot{to.memory, true}));
      std::uint64_t const word = word_of(seat);
      cuda::check(cudaMemcpyAsync(there + static_cast<std::size_t>(seat) * sizeof(word), &word,
                                  sizeof(word), cudaMemcpyDefault, cudaStreamPerThread),
                  "cudaMemcpyAsync");
      CudaStream{}.synchronize();
      return true;
    } catch (Error const&) {
      return false;
    }
  }
  [[nodiscard]] bool has_word_of(int seat) const noexcept {
    std::uint64_t word = 0;
    auto const* const here = static_cast<std::byte const*>(memory_->data());
    cudaError_t const status =
        cudaMemcpyAsync(&word, here + static_cast<std::size_t>(seat) * sizeof(word), sizeof(word),
                        cudaMemcpyDefault, cudaStreamPerThread);
    bool const done =
        status == cudaSuccess && cudaStreamSynchronize(cudaStreamPerThread) == cudaSuccess;
    static_cast<void>(cudaGetLastError());
    return done && word == word_of(seat);
  }

 private:
  static constexpr std::size_t bytes = 1024;
  static constexpr int most = bytes / sizeof(std::uint64_t);
  [[nodiscard]] static std::uint64_t word_of(int seat) noexcept {
    return detail::mix(static_cast<std::uint64_t>(seat) + 1);
  }
  std::optional<Buffer<CudaMemory>> memory_;
  std::optional<cuda::DevicePool::Shown> shown_;
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
