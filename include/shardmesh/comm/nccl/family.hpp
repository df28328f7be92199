// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <nccl.h>

#include <shardmesh/comm/nccl/handle.hpp>
#include <shardmesh/comm/nccl/peer_push.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// The communicators of one rank, all descended from one root, which no data ever pass.
///
/// The root does not block, so that connecting can be given up at any time; its descendants do,
/// because NCCL starts a thread for every call on a communicator that does not block (2.28:
/// ncclGroupEndInternal). They share the root's resources (`splitShare`), its abort flag included:
/// aborting the root frees every thread that waits inside NCCL and every kernel that waits for a
/// peer, while the descendants stay valid until their own threads close them.
class Family {
 public:
  /// Connects the ranks; each has its own device current.
  /// @throws CommError, TimeoutError
  /// @collective
  Family(int size, ncclUniqueId id, int rank, std::chrono::milliseconds timeout) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.splitShare = 1;
    try {
      check(ncclCommInitRankConfig(&root_, size, id, rank, &config), "ncclCommInitRankConfig");
      wait("ncclCommInitRankConfig", timeout);
    } catch (...) {
      abort();
      throw;
    }
  }

  /// Descendants of a communicator that somebody else owns.
  Family() = default;

  Family(Family const&) = delete;
  Family& operator=(Family const&) = delete;
  ~Family() {
    if (!aborted_ && root_ != nullptr) {
      ncclCommDestroy(root_);
    }
  }

  /// How every descendant is made.
  [[nodiscard]] static ncclConfig_t descendant() {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    config.splitShare = 1;
    return config;
  }

  /// The communicator of all ranks that data pass.
  /// @throws CommError, TimeoutError
  /// @collective
  [[nodiscard]] ncclComm_t make_first(int rank, std::chrono::milliseconds timeout) {
    ncclConfig_t config = descendant();
    {
      std::lock_guard const lock(mutex_);
      if (!aborted_) {
        check(ncclCommSplit(root_, 0, rank, &first_, &config), "ncclCommSplit", root_);
      }
    }
    wait("ncclCommSplit", timeout);
    return first_;
  }

  /// Ends everything that waits in NCCL, on the host and on the device, and for what peers push. Any thread may call it.
  void abort() noexcept {
    std::lock_guard const lock(mutex_);
    bool const before = aborted_.exchange(true);
    for (std::weak_ptr<PeerPush> const& one : pushes_) {
      if (auto const push = one.lock()) {
        push->release();
      }
    }
    if (!before && root_ != nullptr) {
      ncclCommAbort(root_);
    }
  }

  /// @param push may be nullptr.
  void release_on_abort(std::shared_ptr<PeerPush> const& push) {
    if (push != nullptr) {
      std::lock_guard const lock(mutex_);
      std::erase_if(pushes_, [](auto const& one) { return one.expired(); });
      pushes_.push_back(push);
      if (aborted_) {
        push->release();
      }
    }
  }

  [[nodiscard]] bool aborted() const noexcept { return aborted_; }

  /// Ends a descendant.
  void close(ncclComm_t comm) noexcept {
    if (aborted_) {
      std::lock_guard const lock(mutex_);  // waits until abort() is through
      ncclCommAbort(comm);
    } else {
      ncclCommDestroy(comm);
    }
  }

 private:
  void wait(char const* call, std::chrono::milliseconds timeout) {
    wait_ready(
        [this] {
          ncclResult_t status = ncclSuccess;
          std::lock_guard const lock(mutex_);
          if (!aborted_) {
            check(ncclCommGetAsyncError(root_, &status), "ncclCommGetAsyncError", root_);
          }
          return status;
        },
        call, timeout);
  }

  std::mutex mutex_;  // for calls on the root
  std::atomic<bool> aborted_ = false;
  std::vector<std::weak_ptr<PeerPush>> pushes_;
  ncclComm_t root_ = nullptr;
  ncclComm_t first_ = nullptr;  // NCCL writes here from a thread of its own
};

/// Owns a descendant.
class Handle {
 public:
  Handle(std::shared_ptr<Family> family, ncclComm_t comm)
      : family_(std::move(family)), comm_(comm) {}
  Handle(Handle const&) = delete;
  Handle& operator=(Handle const&) = delete;
  ~Handle() { family_->close(comm_); }

 private:
  std::shared_ptr<Family> family_;
  ncclComm_t comm_;
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
