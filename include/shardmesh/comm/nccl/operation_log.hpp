// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <cuda_runtime_api.h>

#include <shardmesh/comm/nccl/call_history.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/stream.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// The operations of one communicator that are not known to be done: what the rank's thread has
/// entered, and what it has given to a stream. Written by the rank, read by its watchdog.
class OperationLog {
 public:
  using Clock = std::chrono::steady_clock;

  /// One operation that is under way.
  struct Pending {
    char const* operation = nullptr;
    std::uint64_t number = 0;  ///< counted from 1, alike on all ranks of the group
    Clock::time_point since;   ///< when it was entered, or when the one before it was done
  };

  /// @param group names the communicator, alike on all of its ranks.
  explicit OperationLog(std::string group) : group_(std::move(group)) {}

  [[nodiscard]] std::string const& group() const noexcept { return group_; }

  /// The time that the rank's thread spends in the calls of one operation.
  class Entry {
   public:
    Entry(OperationLog& log, Call const& call) : log_(log) { log_.enter(call); }
    Entry(Entry const&) = delete;
    Entry& operator=(Entry const&) = delete;
    ~Entry() { log_.leave(); }

    /// The calls have given work to `stream`.
    /// @throws DeviceError
    void enqueued(cudaStream_t stream) { log_.enqueued(stream); }

   private:
    OperationLog& log_;
  };

  /// How many operations the rank has entered.
  [[nodiscard]] std::uint64_t entered() const {
    std::lock_guard const lock(mutex_);
    return history_.count();
  }

  /// Work of `stream` from here on follows the last operation, if that was given to another stream. Either all operations
  /// of a communicator ask for it, or none.
  /// @throws DeviceError
  void follow(cudaStream_t stream) {
    unsigned long long id = 0;
    cuda::check(cudaStreamGetId(stream, &id), "cudaStreamGetId");
    std::lock_guard const lock(mutex_);
    if (end_ > 0 && id != last_stream_) {
      Record& last = records_[(end_ - 1) % capacity];
      cuda::check(cudaStreamWaitEvent(stream, last.event->native_handle(), 0),
                  "cudaStreamWaitEvent");
    }
    last_stream_ = id;
  }

  /// Looks at what the rank has called: `f(history)`.
  template <class F>
  auto with_history(F&& f) -> decltype(f(std::declval<CallHistory&>())) {
    std::lock_guard const lock(mutex_);
    return f(history_);
  }

  /// The operation that has been under way for longest, if there is one. Does not wait.
  [[nodiscard]] std::optional<Pending> oldest() {
    std::lock_guard const lock(mutex_);
    while (begin_ != end_) {
      Record& first = records_[begin_ % capacity];
      if (cudaEventQuery(first.event->native_handle()) == cudaErrorNotReady) {
        first.pending.since = std::max(first.pending.since, progress_);
        return first.pending;
      }
      static_cast<void>(cudaGetLastError());  // what failed is reported where it was called
      ++begin_;
      progress_ = Clock::now();
    }
    return inside_.operation == nullptr ? std::nullopt : std::optional(inside_);
  }

 private:
  static constexpr std::size_t capacity = 256;
  struct Record {
    Pending pending;
    std::optional<CudaEvent> event;  // made when first needed, then reused
  };

  void enter(Call const& call) {
    auto const now = Clock::now();
    std::lock_guard const lock(mutex_);
    history_.add(call);
    inside_ = {call.operation(), history_.count(), now};
  }

  void leave() {
    std::lock_guard const lock(mutex_);
    inside_ = {};
  }

  void enqueued(cudaStream_t stream) {
    std::lock_guard const lock(mutex_);
    // Where the host is far ahead, the newest record stands for all that follow it.
    end_ += end_ - begin_ < capacity ? 1 : 0;
    Record& record = records_[(end_ - 1) % capacity];
    record.pending = inside_;
    if (!record.event) {
      record.event.emplace();
    }
    cuda::check(cudaEventRecord(record.event->native_handle(), stream), "cudaEventRecord");
  }

  std::string group_;
  mutable std::mutex mutex_;
  Pending inside_;
  CallHistory history_;
  std::array<Record, capacity> records_;
  std::size_t begin_ = 0;  // of the records in use, counted without end
  std::size_t end_ = 0;
  unsigned long long last_stream_ = 0;  // to which `follow` has led
  Clock::time_point progress_;
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
