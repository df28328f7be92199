// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include <mpi.h>

#include <shardmesh/comm/mpi/detail/check.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A thread that does something again and again, as long as MPI runs: it ends before MPI_Finalize, even
/// where the one who started it lives longer. Needs MPI_THREAD_MULTIPLE.
class MpiThread {
 public:
  /// @param deed   must not throw.
  /// @param pause  between two deeds.
  MpiThread(std::function<void()> deed, std::chrono::milliseconds pause)
      : deed_(std::move(deed)), pause_(pause) {}
  MpiThread(MpiThread const&) = delete;
  MpiThread(MpiThread&&) = delete;
  MpiThread& operator=(MpiThread const&) = delete;
  MpiThread& operator=(MpiThread&&) = delete;
  ~MpiThread() { stop(); }

  /// @returns whether it runs.
  [[nodiscard]] bool start() {
    try {
      // The attributes of MPI_COMM_SELF are the first thing that MPI_Finalize removes.
      mpi_check(MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, &finalized, &key_, nullptr),
                "MPI_Comm_create_keyval");
      mpi_check(MPI_Comm_set_attr(MPI_COMM_SELF, key_, this), "MPI_Comm_set_attr");
      thread_ = std::thread([this] { run(); });
      return true;
    } catch (std::system_error const&) {
      stop();
      return false;
    }
  }

  void stop() {
    int over = 0;
    end();
    MPI_Finalized(&over);
    if (over == 0 && key_ != MPI_KEYVAL_INVALID) {
      MPI_Comm_delete_attr(MPI_COMM_SELF, key_);
      MPI_Comm_free_keyval(&key_);
    }
  }

 private:
  static int finalized(MPI_Comm /*self*/, int /*key*/, void* thread, void* /*extra*/) {
    static_cast<MpiThread*>(thread)->end();
    return MPI_SUCCESS;
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, pause_, [this] { return ends_; })) {
      lock.unlock();
      deed_();
      lock.lock();
    }
  }

  void end() {
    {
      std::lock_guard const lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  std::function<void()> deed_;
  std::chrono::milliseconds pause_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ends_ = false;
  int key_ = MPI_KEYVAL_INVALID;
  std::thread thread_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
