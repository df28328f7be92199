// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/waiting.hpp>
#include <shardmesh/comm/nccl/beat.hpp>
#include <shardmesh/comm/nccl/call_watch.hpp>
#include <shardmesh/comm/nccl/family.hpp>
#include <shardmesh/comm/nccl/operation_log.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// One thread a rank that looks after the rank's communicators. The watchdogs of a job meet several
/// times a second on a channel of their own, so that each learns at once that a rank has died or
/// failed, which ranks did not arrive where an operation is overdue, and whether ranks have made
/// different calls (`CallWatch`). Then every one aborts its rank's communicators; the rank's thread wakes up, wherever it waits, and gets the reason at its
/// next call. The first reason stands.
///
/// A process that is stopped for longer than the timeout, by a debugger too, counts as failed.
template <Communicator Control>
class Watchdog {
 public:
  using Clock = OperationLog::Clock;

  /// @param channel connects the ranks of the job, and nobody else uses it.
  Watchdog(Control channel, std::shared_ptr<Family> family, std::chrono::milliseconds timeout)
      : channel_(std::move(channel)),
        family_(std::move(family)),
        timeout_(timeout),
        exceptions_(std::uncaught_exceptions()) {
    cuda::check(cudaGetDevice(&device_), "cudaGetDevice");
    thread_ = std::thread([this] { run(); });
  }
  Watchdog(Watchdog const&) = delete;
  Watchdog& operator=(Watchdog const&) = delete;

  /// Waits for the other ranks to end as well, unless something has failed.
  /// @collective
  ~Watchdog() {
    if (std::uncaught_exceptions() > exceptions_) {
      fail("an exception ended it");
    } else {
      announce([this] { leaving_ = true; });
    }
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  /// @throws the reason, if the job has failed: RankFailed, TimeoutError or CommError.
  void check() const {
    if (failed_.load(std::memory_order_acquire)) {
      std::rethrow_exception(reason());
    }
  }

  /// A call has failed, which may be the consequence of what the watchdog is about to hear: waits
  /// for that a moment.
  /// @throws the reason, if there is one.
  void explain() const {
    auto const deadline = Clock::now() + std::chrono::seconds(1);
    while (Clock::now() < deadline && !failed_.load(std::memory_order_acquire)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    check();
  }

  [[nodiscard]] bool failed() const noexcept { return failed_.load(std::memory_order_acquire); }

  /// Tells the other ranks that this one ends, and why. They get RankFailed.
  void fail(std::string const& what) noexcept {
    try {
      announce([&] { own_failure_ = own_failure_.empty() ? what : own_failure_; });
      if (thread_.joinable()) {
        thread_.join();
      }
    } catch (std::exception const&) {  // they see this rank end instead
    }
  }

  /// Looks after a communicator from here on, until it is forgotten.
  /// @param comm asked for errors that NCCL reports; nullptr if somebody else asks it, since only one
  ///        thread may ask a communicator that does not block.
  void watch(OperationLog& log, ncclComm_t comm) {
    std::lock_guard const lock(mutex_);
    watched_.push_back({&log, comm});
  }
  void forget(OperationLog const& log) {
    std::lock_guard const lock(mutex_);
    std::erase_if(watched_, [&log](Watched const& one) { return one.log == &log; });
  }

 private:
  struct Watched {
    OperationLog* log;
    ncclComm_t comm;
  };
  /// How long an error that NCCL reports waits for a better explanation.
  static constexpr std::chrono::seconds patience{1};

  template <class Change>
  void announce(Change&& change) {
    {
      std::lock_guard const lock(mutex_);
      change();
    }
    wake_.notify_all();
  }

  [[nodiscard]] std::exception_ptr reason() const {
    std::lock_guard const lock(mutex_);
    return reason_;
  }

  void run() {
    detail::Housekeeping const uncounted;
    try {
      cuda::check(cudaSetDevice(device_), "cudaSetDevice");
      // Asking for an event must not disturb a thread that captures a graph.
      cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
      cuda::check(cudaThreadExchangeStreamCaptureMode(&mode),
                  "cudaThreadExchangeStreamCaptureMode");
      while (round()) {
      }
    } catch (...) {
      {
        std::lock_guard const lock(mutex_);
        reason_ = std::current_exception();
      }
      failed_.store(true, std::memory_order_release);
      wake_host();
      family_->abort();
    }
  }

  /// Ranks that made different calls may wait on the host, for one that waits in NCCL: nothing else would
  /// wake them before the timeout. (A rank that has failed says so itself, and so does a process.)
  void wake_host() const noexcept {
    if constexpr (requires { channel_.report_failure("", std::exception_ptr()); }) {
      try {
        std::rethrow_exception(reason());
      } catch (MismatchError const& error) {
        channel_.report_failure(error.what(), std::current_exception());
      } catch (...) {  // see above
      }
    }
  }

  /// Meets the other watchdogs once. @returns whether to go on.
  [[nodiscard]] bool round() {
    pause();
    auto const packed = channel_.all_gather(pack(look()));
    std::vector<Beat> beats;
    beats.reserve(packed.size());
    for (auto const& bytes : packed) {
      beats.push_back(unpack(bytes));
    }
    auto const find = [&beats](Beat::Kind kind) {
      return static_cast<std::size_t>(
          std::find_if(beats.begin(), beats.end(), [&](Beat const& b) { return b.kind == kind; }) -
          beats.begin());
    };
    if (std::size_t const rank = find(Beat::failed); rank < beats.size()) {
      int const who = channel_.world_ranks()[rank];
      throw RankFailed(who,
                       "shardmesh: rank " + std::to_string(who) + " failed: " + beats[rank].text);
    }
    if (calls_.disputed()) {
      calls_.judge(beats, channel_.world_ranks());
      return true;
    }
    if (question_) {
      throw TimeoutError(explain_stuck(*question_, beats));
    }
    {
      std::lock_guard const lock(mutex_);
      calls_.compare(beats, logs());
    }
    if (calls_.disputed()) {
      return true;
    }
    if (std::size_t const rank = find(Beat::stuck); rank < beats.size()) {
      question_ = beats[rank];
      return true;
    }
    return !std::all_of(beats.begin(), beats.end(),
                        [](Beat const& beat) { return beat.kind == Beat::leaving; });
  }

  /// Time between rounds; none where something is to be said.
  void pause() {
    auto const interval = std::min<std::chrono::milliseconds>(
        std::chrono::milliseconds(200 + channel_.size()), timeout_ / 8);
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, interval,
                   [this] { return in_hurry() || leaving_ || !own_failure_.empty(); });
    if (leaving_ && !in_hurry() && own_failure_.empty()) {
      // Others may take their time to leave: do not meet them in a busy loop.
      wake_.wait_for(lock, std::chrono::milliseconds(1), [this] { return !own_failure_.empty(); });
    }
  }

  /// Do the others wait for an answer?
  [[nodiscard]] bool in_hurry() const { return question_ || calls_.disputed(); }

  /// @pre the lock is held.
  [[nodiscard]] std::vector<OperationLog*> logs() const {
    std::vector<OperationLog*> found;
    for (Watched const& one : watched_) {
      found.push_back(one.log);
    }
    return found;
  }

  /// What this rank has to say.
  [[nodiscard]] Beat look() {
    std::lock_guard const lock(mutex_);
    if (!own_failure_.empty()) {
      return {Beat::failed, 0, "", own_failure_, {}};
    }
    if (calls_.disputed()) {
      return calls_.argue(logs());
    }
    if (question_) {
      auto const one =
          std::find_if(watched_.begin(), watched_.end(), [this](Watched const& watched) {
            return watched.log->group() == question_->group;
          });
      return {
          Beat::answer, one == watched_.end() ? Beat::no_member : one->log->entered(), "", "", {}};
    }
    bool idle = true;
    for (Watched const& one : watched_) {
      if (std::string const error = nccl_error(one.comm); !error.empty()) {
        return {Beat::failed, 0, "", error, {}};
      }
      if (auto const pending = one.log->oldest()) {
        idle = false;
        if (Clock::now() - pending->since > timeout_) {
          return {Beat::stuck, pending->number, one.log->group(), pending->operation,
                  calls_.report(logs())};
        }
      }
    }
    return {leaving_ && idle ? Beat::leaving : Beat::fine, 0, "", "", calls_.report(logs())};
  }

  /// What NCCL reports of a communicator, once nobody has explained it for a while.
  [[nodiscard]] std::string nccl_error(ncclComm_t comm) {
    ncclResult_t status = ncclSuccess;
    if (comm == nullptr || ncclCommGetAsyncError(comm, &status) != ncclSuccess ||
        status == ncclSuccess || status == ncclInProgress) {
      return "";
    }
    if (!error_since_) {
      error_since_ = Clock::now();
    }
    return Clock::now() - *error_since_ < patience
               ? ""
               : std::string("NCCL reports: ") + ncclGetErrorString(status);
  }

  [[nodiscard]] std::string explain_stuck(Beat const& question,
                                          std::vector<Beat> const& answers) const {
    auto const world = channel_.world_ranks();
    std::string members;
    std::string missing;
    for (std::size_t rank = 0; rank < answers.size(); ++rank) {
      if (answers[rank].kind == Beat::answer && answers[rank].number != Beat::no_member) {
        std::string const name = std::to_string(world[rank]);
        members += (members.empty() ? "" : ", ") + name;
        if (answers[rank].number < question.number) {
          missing += (missing.empty() ? "" : ", ") + name;
        }
      }
    }
    std::string const what = "shardmesh::" + question.text + ": operation " +
                             std::to_string(question.number) + " of the group of ranks " + members +
                             " did not finish within " + std::to_string(timeout_.count()) + " ms: ";
    return missing.empty()
               ? what + "all ranks arrived; look at the links between the GPUs (NCCL_DEBUG=INFO), "
                        "or raise the timeout of the launch"
               : what + "rank " + missing +
                     " did not arrive; look at what it waits for, or raise the timeout of the "
                     "launch";
  }

  Control channel_;
  std::shared_ptr<Family> family_;
  std::chrono::milliseconds timeout_;
  int exceptions_;
  int device_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Watched> watched_;
  std::string own_failure_;
  bool leaving_ = false;
  std::exception_ptr reason_;
  std::atomic<bool> failed_ = false;

  // Of the watchdog's thread alone.
  std::optional<Beat> question_;
  CallWatch calls_;
  std::optional<Clock::time_point> error_since_;

  std::thread thread_;
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
