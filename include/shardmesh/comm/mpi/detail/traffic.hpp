// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <mpi.h>

#include <shardmesh/comm/detail/waiting.hpp>
#include <shardmesh/comm/mpi/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Messages of one group that are on their way. Those between two ranks arrive in the order in which
/// they were sent; long ones travel as several, since MPI counts in `int`.
class MpiTraffic {
 public:
  static constexpr std::size_t most_bytes = std::size_t{1} << 26;

  /// @param operation for messages, e.g. "barrier".
  /// @throws the failure of the job, if it has failed.
  MpiTraffic(MpiJob& job, int tag, char const* operation)
      : job_(job), tag_(tag), operation_(operation) {
    auto const lock = job_.enter();
    job_.require_good();
  }
  MpiTraffic(MpiTraffic const&) = delete;
  MpiTraffic(MpiTraffic&&) = delete;
  MpiTraffic& operator=(MpiTraffic const&) = delete;
  MpiTraffic& operator=(MpiTraffic&&) = delete;
  /// What has not arrived must not arrive later, in memory that has another use by then.
  ~MpiTraffic() {
    if (pending_.empty()) {
      return;
    }
    auto const lock = job_.enter();
    for (Pending& one : pending_) {
      if (one.request != MPI_REQUEST_NULL && one.arrives) {
        MPI_Cancel(&one.request);
      }
      if (one.request != MPI_REQUEST_NULL) {
        MPI_Request_free(&one.request);
      }
    }
  }

  /// @param peer rank in the job. The bytes must stay until `wait` returns.
  void send(int peer, std::span<std::byte const> bytes) {
    start(peer, bytes, false, [&](std::span<std::byte const> part, MPI_Request* request) {
      mpi_check(MPI_Isend(part.data(), static_cast<int>(part.size()), MPI_BYTE, peer, tag_,
                          job_.native_handle(), request),
                "MPI_Isend");
    });
  }

  /// @param peer rank in the job. A message may be shorter than the bytes.
  void receive(int peer, std::span<std::byte> bytes) {
    start(peer, bytes, true, [&](std::span<std::byte> part, MPI_Request* request) {
      mpi_check(MPI_Irecv(part.data(), static_cast<int>(part.size()), MPI_BYTE, peer, tag_,
                          job_.native_handle(), request),
                "MPI_Irecv");
    });
  }

  /// Waits until all are sent and received.
  /// @throws TimeoutError naming ranks, if nothing moves for as long as the timeout; RankFailed;
  ///         CommError
  void wait() {
    Waiting const waiting;
    auto last_move = std::chrono::steady_clock::now();
    MpiPause pause;
    for (std::size_t next = 0; next < pending_.size();) {
      auto lock = job_.enter();
      if (done(pending_[next])) {
        ++next;
        last_move = std::chrono::steady_clock::now();
        pause = {};
        continue;
      }
      job_.listen();
      job_.hear_work();
      // Each rank that is missing may be at work; those that have come are no reason to go on.
      if (std::chrono::steady_clock::now() - last_move > job_.timeout() &&
          anybody_is_late(last_move)) {
        give_up(last_move);
      }
      lock.unlock();
      pause();
    }
    pending_.clear();
    auto const lock = job_.enter();
    job_.hear_work();
  }

 private:
  struct Pending {
    MPI_Request request;
    int peer;
    bool arrives;
  };

  template <class Bytes, class Start>
  void start(int peer, Bytes bytes, bool arrives, Start call) {
    auto const lock = job_.enter();
    do {
      auto const part = bytes.first(std::min(bytes.size(), most_bytes));
      pending_.push_back({MPI_REQUEST_NULL, peer, arrives});
      call(part, &pending_.back().request);
      bytes = bytes.subspan(part.size());
    } while (!bytes.empty());
  }

  [[nodiscard]] bool done(Pending& one) {
    int flag = 0;
    int const status = MPI_Test(&one.request, &flag, MPI_STATUS_IGNORE);
    if (status != MPI_SUCCESS) {
      one.request = MPI_REQUEST_NULL;
      try {
        mpi_check(status, "MPI_Test");
      } catch (CommError const& error) {
        job_.fail(CommError(std::string("shardmesh::") + operation_ + ": a message " +
                            (one.arrives ? "from" : "to") + " rank " + std::to_string(one.peer) +
                            " was lost: " + error.what()));
      }
    }
    return flag != 0;
  }

  [[nodiscard]] bool anybody_is_late(MpiJob::Deadline since) {
    return !unfinished(true, since).empty() || !unfinished(false, since).empty();
  }

  [[noreturn]] void give_up(MpiJob::Deadline since) {
    std::string absent = unfinished(true, since);
    std::string const what = absent.empty() ? " did not take its data" : " did not arrive";
    job_.fail(TimeoutError(std::string("shardmesh::") + operation_ + ": rank " +
                           (absent.empty() ? unfinished(false, since) : absent) + what +
                           " within " + std::to_string(job_.timeout().count()) +
                           " ms; look at what it waits for, or raise the timeout of the launch"));
  }

  /// The ranks from which (or to which) something is still to come, though nothing has since then.
  [[nodiscard]] std::string unfinished(bool arriving, MpiJob::Deadline since) {
    std::vector<int> peers;
    for (Pending& one : pending_) {
      if (one.arrives == arriving && !job_.may_come(one.peer, since) && !done(one)) {
        peers.push_back(one.peer);
      }
    }
    std::sort(peers.begin(), peers.end());
    peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
    std::string text;
    for (int peer : peers) {
      text += text.empty() ? "" : ", ";
      text += std::to_string(peer);
    }
    return text;
  }

  MpiJob& job_;
  int tag_;
  char const* operation_;
  std::vector<Pending> pending_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
