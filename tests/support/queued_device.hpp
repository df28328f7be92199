// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// A device that a machine without a GPU can play: a stream is a thread with a queue, which takes its time, and its
// order is the only one there is. What is used before its stream has come to it holds other bytes than it should
// (and is a data race that ThreadSanitizer sees); what is freed too early is written over.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <shardmesh/memory/host.hpp>

namespace test {

/// The thread behind a stream.
class DeviceQueue {
 public:
  DeviceQueue() : worker_([this] { work(); }) {}
  DeviceQueue(DeviceQueue const&) = delete;
  DeviceQueue& operator=(DeviceQueue const&) = delete;
  ~DeviceQueue() {
    {
      std::lock_guard const lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    worker_.join();
  }

  void push(std::function<void()> task) {
    {
      std::lock_guard const lock(mutex_);
      tasks_.push_back(std::move(task));
      ++given_;
    }
    changed_.notify_all();
  }
  void synchronize() {
    std::unique_lock lock(mutex_);
    std::size_t const until = given_;
    changed_.wait(lock, [&] { return done_ >= until; });
  }

  /// The one that stands for the calling thread's default stream, as `cudaStreamPerThread` does.
  static DeviceQueue& of_thread() {
    thread_local DeviceQueue queue;
    return queue;
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return ends_ || !tasks_.empty(); });
      if (tasks_.empty()) {
        return;
      }
      auto const task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      // Now and then a stream is late: others, and the host, must not have relied on it.
      if ((seed_ = seed_ * 1664525U + 1013904223U) >> 29U == 0) {
        std::this_thread::sleep_for(std::chrono::microseconds(seed_ % 400));
      }
      task();
      lock.lock();
      ++done_;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::size_t given_ = 0;
  std::size_t done_ = 0;
  bool ends_ = false;
  std::uint32_t seed_ = 1;
  std::thread worker_;  // last: it uses the others
};

struct QueuedStream {
  DeviceQueue* queue = nullptr;  ///< null: the calling thread's own

  [[nodiscard]] DeviceQueue& get() const {
    return queue != nullptr ? *queue : DeviceQueue::of_thread();
  }
  void synchronize() const { get().synchronize(); }
};

class QueuedOwnedStream {
 public:
  [[nodiscard]] QueuedStream get() const noexcept { return {queue_.get()}; }

 private:
  std::unique_ptr<DeviceQueue> queue_ = std::make_unique<DeviceQueue>();
};

/// A point in a stream; can be recorded again and again, as CUDA's.
class QueuedEvent {
 public:
  void record(QueuedStream stream) {
    std::size_t const number = ++state_->recorded;
    stream.get().push([state = state_, number] {
      std::lock_guard const lock(state->mutex);
      state->reached = std::max(state->reached, number);
      state->changed.notify_all();
    });
  }
  void wait(QueuedStream stream) const {
    std::size_t const number = state_->recorded;
    stream.get().push([state = state_, number] {
      std::unique_lock lock(state->mutex);
      state->changed.wait(lock, [&] { return state->reached >= number; });
    });
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::atomic<std::size_t> recorded = 0;
    std::size_t reached = 0;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

struct QueuedDevice {
  static constexpr shardmesh::MemoryKind kind = shardmesh::MemoryKind::cuda;
  static constexpr bool host_accessible = false;
  using Stream = QueuedStream;
  using Event = QueuedEvent;
  using OwnedStream = QueuedOwnedStream;
  using Host = shardmesh::HostMemory;

  static void* allocate(std::size_t bytes, Stream stream = {}) {
    void* const pointer = Host::allocate(bytes);
    stream.get().push([=] { spoil(pointer, bytes); });
    return pointer;
  }
  static void deallocate(void* pointer, std::size_t bytes, Stream stream = {}) noexcept {
    stream.get().push([=] {
      spoil(pointer, bytes);
      Host::deallocate(pointer, bytes);
    });
  }
  static void copy(shardmesh::StridedCopy const& copy, Stream stream = {}) {
    stream.get().push([copy] { Host::copy(copy); });
  }
  static void fill_zero(void* pointer, std::size_t bytes, Stream stream = {}) {
    stream.get().push([=] { Host::fill_zero(pointer, bytes); });
  }
  static void reduce(shardmesh::DType dtype,
                     shardmesh::ReduceOp op,
                     void* destination,
                     std::span<void const* const> sources,
                     shardmesh::index_t count,
                     Stream stream = {}) {
    std::vector<void const*> const all(sources.begin(), sources.end());
    stream.get().push([=] { Host::reduce(dtype, op, destination, all, count); });
  }
  static void convert(shardmesh::DType from,
                      void const* source,
                      shardmesh::DType to,
                      void* target,
                      shardmesh::index_t count,
                      Stream stream = {}) {
    stream.get().push([=] { Host::convert(from, source, to, target, count); });
  }
  template <class F>
  static void for_each_index(shardmesh::index_t count, F const& f, Stream stream = {}) {
    stream.get().push([=] { Host::for_each_index(count, f); });
  }

  [[nodiscard]] static OwnedStream make_stream() { return {}; }
  [[nodiscard]] static Event make_event() { return {}; }
  static void record(Event& event, Stream stream) { event.record(stream); }
  static void wait(Stream stream, Event const& event) { event.wait(stream); }

 private:
  static void spoil(void* pointer, std::size_t bytes) {
    if (bytes > 0) {
      std::memset(pointer, 0xa5, bytes);
    }
  }
};

static_assert(shardmesh::MemorySpace<QueuedDevice>);

}  // namespace test
