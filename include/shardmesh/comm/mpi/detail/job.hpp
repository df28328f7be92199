// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <mpi.h>

#include <shardmesh/comm/call.hpp>
#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/detail/presence.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/comm/mpi/detail/check.hpp>
#include <shardmesh/comm/mpi/detail/thread.hpp>
#include <shardmesh/comm/mpi/detail/words.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What all groups of a job share: a duplicate of a communicator of MPI, so that no message of the
/// host program is mistaken for one of ours, and the news of ranks that failed.
///
/// MPI offers neither deadlines nor news of failures: a rank that waits, waits for ever, or is killed
/// by the launcher. So everything here is non-blocking and polled, and a rank that fails says so to
/// all others on a tag of its own. After the first failure every call throws it again.
///
/// A rank that waits for long asks the ranks that are missing what they do. With MPI_THREAD_MULTIPLE a
/// thread of each rank answers, whatever the rank is at, so that silence means that a process hangs
/// or its host is cut off. Where one rank has less, none asks: ranks tell when a `Working` begins,
/// gets further and ends, and one that was cut off in it is waited for as long as for one that works.
///
/// Groups are not communicators of MPI but tags: a split needs no collective call that could hang,
/// and no ranks outside the group.
class MpiJob {
 public:
  using Deadline = std::chrono::steady_clock::time_point;
  static constexpr int failure_tag = 0;
  static constexpr int world_tag = 1;

  /// @collective over `host`.
  /// @throws TimeoutError, CommError, InvalidArgument
  MpiJob(MPI_Comm host, Limits limits)
      : limits_(limits),
        activity_(std::make_shared<Activity>(
            [](void* job, Activity::State const& now) {
              static_cast<MpiJob*>(job)->tell_work(now);
            },
            this)),
        thread_(
            [this]() noexcept {
              std::lock_guard const lock(mutex_);
              hear_words();
            },
            beat()) {
    int between_groups = 0;
    mpi_check(MPI_Query_thread(&level_), "MPI_Query_thread");
    mpi_check(MPI_Comm_test_inter(host, &between_groups), "MPI_Comm_test_inter");
    if (between_groups != 0) {
      throw InvalidArgument(
          "shardmesh::MpiCommunicator: an inter-communicator connects two groups; "
          "merge them with MPI_Intercomm_merge first");
    }
    comm_ = duplicate(host);
    mpi_check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    mpi_check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    heard_from_.resize(static_cast<std::size_t>(size_), false);
    void* most = nullptr;
    int known = 0;
    mpi_check(MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, static_cast<void*>(&most), &known),
              "MPI_Comm_get_attr");
    if (known != 0) {
      most_tag_ = *static_cast<int const*>(most);
    }
    MpiWordChannel* channel = MpiWordChannel::of(host);
    if (channel == nullptr) {
      channel = MpiWordChannel::keep(host, duplicate(host));
    }
    words_ = std::make_unique<MpiWords>(*channel, size_, most_tag_);
    bool const could = size_ > 1 && level_ == MPI_THREAD_MULTIPLE && thread_.start();
    all_answer_ = all_can(could);
    if (!all_answer_) {
      thread_.stop();
    }
  }
  MpiJob(MpiJob const&) = delete;
  MpiJob(MpiJob&&) = delete;
  MpiJob& operator=(MpiJob const&) = delete;
  MpiJob& operator=(MpiJob&&) = delete;
  /// The duplicate of a job that failed is left alone: messages may still be on their way.
  ~MpiJob() {
    activity_->detach();
    thread_.stop();
    int over = 0;
    MPI_Finalized(&over);
    if (over == 0 && !failure_) {
      MPI_Comm_free(&comm_);
    }
  }

  [[nodiscard]] MPI_Comm native_handle() const noexcept { return comm_; }
  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return size_; }
  [[nodiscard]] std::chrono::milliseconds timeout() const noexcept { return limits_.call; }
  [[nodiscard]] Limits const& limits() const noexcept { return limits_; }
  /// What this rank does between its calls.
  [[nodiscard]] std::shared_ptr<Activity> const& activity() const noexcept { return activity_; }

  /// The right to call MPI: threads take turns, so that MPI_THREAD_SERIALIZED suffices.
  /// @throws InvalidArgument in a thread from which this MPI takes no calls.
  [[nodiscard]] std::unique_lock<std::mutex> enter() {
    int main_thread = 1;
    if (level_ < MPI_THREAD_SERIALIZED) {
      MPI_Is_thread_main(&main_thread);
    }
    if (main_thread == 0) {
      throw InvalidArgument(
          "shardmesh::MpiCommunicator: called from another thread than the one that "
          "initialised MPI; initialise with MPI_Init_thread and "
          "MPI_THREAD_SERIALIZED, or call from that thread");
    }
    return std::unique_lock(mutex_);
  }

  /// @throws the first failure, if there was one.
  void require_good() const {
    if (failure_) {
      std::rethrow_exception(failure_);
    }
  }

  /// Throws, and will again at every later call.
  template <class E>
  [[noreturn]] void fail(E const& error) {
    failure_ = std::make_exception_ptr(error);
    throw error;
  }

  /// Hears whether another rank has failed, and passes it on to those that may wait for this one.
  /// @throws RankFailed
  void listen() {
    if (hear()) {
      tell(news_);
      fail(RankFailed(news_.rank,
                      "shardmesh: rank " + std::to_string(news_.rank) + " failed: " + news_.words));
    }
  }

  /// The time in which this process has run.
  [[nodiscard]] Deadline now() { return clock_.now(); }
  /// How long a rank waits before it looks what the others do, and between two looks.
  [[nodiscard]] std::chrono::milliseconds beat() const {
    using Milliseconds = std::chrono::milliseconds;
    Milliseconds const shortest = std::min({limits_.call, limits_.silence, limits_.progress});
    return std::clamp(shortest / 8, Milliseconds(1), Milliseconds(500));
  }

  /// Something has come from another rank, or is to be taken for that: what was known before a rank
  /// began to wait is not held against the others.
  void moved(int rank, Deadline when) { words_->of(rank).moved(when); }

  /// Looks after one that is missing. @returns what it is known to do.
  [[nodiscard]] Presence const& look_at(int rank) {
    if (all_answer_) {
      words_->ask(rank);
    }
    return words_->of(rank);
  }

  /// Hears of other ranks' work what has arrived, and answers those that ask.
  void hear_words() noexcept {
    try {
      words_->hear(now(), *activity_);
    } catch (...) {  // then nothing is heard of the others
    }
  }

  /// Whether a rank that says nothing hangs or is cut off.
  [[nodiscard]] bool all_answer() const noexcept { return all_answer_; }

  /// Why a rank from which nothing has come since then is waited for no longer; empty while it is.
  [[nodiscard]] std::string given_up(Presence const& other, Deadline since) {
    Limits limits = limits_;
    if (!all_answer_) {
      limits.silence = std::chrono::hours(24 * 3650);
    }
    return other.given_up("", since, now(), limits);
  }

  /// Tells all ranks why this one fails, and waits a little until all know: a process that ends takes
  /// the others with it before they could say why.
  void report_failure(std::string const& what) {
    auto const lock = enter();
    if (!failure_) {
      failure_ = std::make_exception_ptr(
          CommError("shardmesh: this rank has told the others that it failed: " + what));
    }
    tell({rank_, what});
    Deadline const deadline =
        std::chrono::steady_clock::now() +
        std::min<std::chrono::milliseconds>(limits_.call, std::chrono::seconds(2));
    MpiPause pause;
    while (std::find(heard_from_.begin(), heard_from_.end(), false) != heard_from_.end() &&
           std::chrono::steady_clock::now() < deadline) {
      if (!hear()) {
        pause();
      }
    }
  }

  [[nodiscard]] int next_tag() const noexcept { return next_tag_; }

  /// Keeps a tag from being given to another group of this rank.
  void take_tag(int tag) {
    if (tag > most_tag_) {
      throw CommError("shardmesh::split: this MPI has tags up to " + std::to_string(most_tag_) +
                      ", and every group takes one; keep groups instead of making them again");
    }
    next_tag_ = tag + 1;
  }

 private:
  /// Who failed first, in whose words.
  struct News {
    int rank = -1;
    std::string words;
  };
  static constexpr std::size_t most_words = 2000;  // goes out at once, without the receiver's help

  /// Where nobody could answer. Of steps, no more than a few within a limit.
  void tell_work(Activity::State const& state) {
    if (all_answer_) {
      return;
    }
    auto const now = std::chrono::steady_clock::now();
    bool const is_due = now - last_told_ > std::min(limits_.call, limits_.progress) / 8;
    auto const lock = enter();
    if (failure_ || (state.working == told_working_ && !is_due)) {
      return;
    }
    told_working_ = state.working;
    last_told_ = now;
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != rank_) {
        words_->tell(peer, state);
      }
    }
  }

  [[nodiscard]] MPI_Comm duplicate(MPI_Comm host) {
    auto comm = std::make_unique<MPI_Comm>(MPI_COMM_NULL);
    MPI_Request request = MPI_REQUEST_NULL;
    mpi_check(MPI_Comm_idup(host, comm.get(), &request), "MPI_Comm_idup");
    all_arrive(request, comm);
    return *comm;
  }

  /// Whether all ranks can. @collective
  [[nodiscard]] bool all_can(bool this_one) {
    struct Votes {
      int mine;
      int all;
    };
    auto votes = std::make_unique<Votes>(Votes{this_one ? 1 : 0, 0});
    MPI_Request request = MPI_REQUEST_NULL;
    mpi_check(MPI_Iallreduce(&votes->mine, &votes->all, 1, MPI_INT, MPI_MIN, comm_, &request),
              "MPI_Iallreduce");
    all_arrive(request, votes);
    return votes->all != 0;
  }

  /// @param memory  of the request; left to MPI if not all ranks come.
  template <class T>
  void all_arrive(MPI_Request request, std::unique_ptr<T>& memory) {
    Deadline const deadline = std::chrono::steady_clock::now() + limits_.call;
    MpiPause pause;
    for (int done = 0; done == 0; pause()) {
      mpi_check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done == 0 && std::chrono::steady_clock::now() > deadline) {
        [[maybe_unused]] T const* const left = memory.release();
        throw TimeoutError("shardmesh::MpiCommunicator: not all ranks of the communicator arrived "
                           "within " +
                           std::to_string(limits_.call.count()) +
                           " ms; adopting one is collective over its ranks");
      }
    }
  }

  /// Looks for a rank that says that it has failed. @returns whether there was one.
  [[nodiscard]] bool hear() {
    int there = 0;
    MPI_Status status{};
    mpi_check(MPI_Iprobe(MPI_ANY_SOURCE, failure_tag, comm_, &there, &status), "MPI_Iprobe");
    if (there == 0) {
      return false;
    }
    int bytes = 0;
    mpi_check(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
    std::vector<char> raw(static_cast<std::size_t>(bytes));
    mpi_check(MPI_Recv(raw.data(), bytes, MPI_BYTE, status.MPI_SOURCE, failure_tag, comm_,
                       MPI_STATUS_IGNORE),
              "MPI_Recv");
    heard_from_[static_cast<std::size_t>(status.MPI_SOURCE)] = true;
    if (news_.rank < 0) {
      std::memcpy(&news_.rank, raw.data(), sizeof(news_.rank));
      news_.words = readable({raw.data() + sizeof(news_.rank), raw.size() - sizeof(news_.rank)});
    }
    return true;
  }

  /// Sends each rank one message that somebody has failed; later calls do nothing.
  void tell(News const& mine) {
    if (!told_.empty()) {
      return;
    }
    if (news_.rank < 0) {
      news_ = mine;
    }
    told_.resize(sizeof(news_.rank));
    std::memcpy(told_.data(), &news_.rank, sizeof(news_.rank));
    told_.append(news_.words, 0, most_words);
    heard_from_[static_cast<std::size_t>(rank_)] = true;
    for (int peer = 0; peer < size_; ++peer) {
      MPI_Request request = MPI_REQUEST_NULL;
      if (peer != rank_ && MPI_Isend(told_.data(), static_cast<int>(told_.size()), MPI_BYTE, peer,
                                     failure_tag, comm_, &request) == MPI_SUCCESS) {
        MPI_Request_free(&request);  // told_ stays as it is
      }
    }
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 0;
  int level_ = MPI_THREAD_SINGLE;
  int most_tag_ = 32767;  // what the standard grants
  int next_tag_ = world_tag + 1;
  Limits limits_;
  std::shared_ptr<Activity> activity_;
  bool told_working_ = false;
  Deadline last_told_{};
  RunningClock clock_;
  std::unique_ptr<MpiWords> words_;
  bool all_answer_ = false;
  std::mutex mutex_;
  std::exception_ptr failure_;
  News news_;
  std::string told_;
  std::vector<bool> heard_from_;
  MpiThread thread_;  // ends first
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
