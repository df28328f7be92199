// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <mpi.h>

#include <shardmesh/comm/detail/presence.hpp>
#include <shardmesh/comm/detail/waiting.hpp>
#include <shardmesh/comm/mpi/detail/check.hpp>
#include <shardmesh/comm/mpi/detail/job.hpp>
#include <shardmesh/core/text.hpp>

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
  /// @throws TimeoutError naming ranks, if one that is missing is given up; RankFailed; CommError
  void wait() {
    Waiting const waiting;
    MpiPause pause;
    Relay relay(job_.activity());
    auto lock = job_.enter();
    auto last_move = job_.now();
    auto last_look = last_move;
    bool is_first_look = true;
    for (std::size_t next = 0; next < pending_.size();) {
      if (done(pending_[next])) {
        last_move = job_.now();
        job_.moved(pending_[next].peer, last_move);
        ++next;
        pause = {};
        continue;
      }
      job_.listen();
      job_.hear_words();
      bool const is_time = job_.now() - last_look > job_.beat();
      if (is_time) {
        last_look = job_.now();
        look(last_move, is_first_look, relay);
        is_first_look = false;
      }
      lock.unlock();
      if (is_time && job_.all_answer()) {
        relay.pass_on();
      }
      pause();
      lock.lock();
    }
    pending_.clear();
    job_.hear_words();
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

  /// Looks after the ranks that are missing.
  /// @param since     nothing has come from anybody since then.
  /// @param is_first  what was known of them before counts for nothing.
  void look(MpiJob::Deadline since, bool is_first, Relay& relay) {
    for (bool const arriving : {true, false}) {
      std::vector<int> late;
      std::string why;
      for (Pending& one : pending_) {
        if (one.arrives != arriving || done(one)) {
          continue;
        }
        if (is_first) {
          job_.moved(one.peer, since);
        }
        Presence const& other = job_.look_at(one.peer);
        std::string const reason = job_.given_up(other, since);
        if (reason.empty()) {
          relay.look(one.peer, other);
        } else if (late.empty() || reason == why) {
          late.push_back(one.peer);
          why = reason;
        }
      }
      if (!late.empty()) {
        give_up(std::move(late), arriving, why);
      }
    }
  }

  [[noreturn]] void give_up(std::vector<int> peers, bool arriving, std::string const& why) {
    std::sort(peers.begin(), peers.end());
    peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
    std::string names;
    for (int peer : peers) {
      names += names.empty() ? "" : ", ";
      names += std::to_string(peer);
    }
    job_.fail(
        TimeoutError(concat("shardmesh::", operation_, ": rank ", names,
                            arriving ? " did not arrive" : " did not take its data", why,
                            "; look at what it waits for, or raise the timeout of the launch")));
  }

  MpiJob& job_;
  int tag_;
  char const* operation_;
  std::vector<Pending> pending_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
