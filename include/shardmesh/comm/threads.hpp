// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/detail/copy_phase.hpp>
#include <shardmesh/comm/detail/offers.hpp>
#include <shardmesh/comm/detail/thread_group.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/core/counters.hpp>

namespace shardmesh {
inline namespace v0 {

/// Ranks as threads of one process: the embedded default. Needs no launcher, no MPI and no GPU.
struct threads {
  int ranks = 1;
  /// How long a rank waits for the others before it gives up.
  Limits timeout = {};
};

/// A group of ranks that are threads of one process.
class ThreadsCommunicator {
 public:
  static constexpr bool shared_address_space = true;
  template <class Space>
  static constexpr bool moves = true;

  ThreadsCommunicator() = default;
  ThreadsCommunicator(std::shared_ptr<detail::ThreadGroup> group, int rank)
      : group_(std::move(group)), rank_(rank) {}

  [[nodiscard]] explicit operator bool() const noexcept { return group_ != nullptr; }
  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return group_ ? group_->size() : 0; }
  [[nodiscard]] std::vector<int> world_ranks() const { return group("world_ranks").world_ranks(); }

  /// What this rank does between its calls; see `Working`.
  [[nodiscard]] std::shared_ptr<detail::Activity> const& activity() const {
    return group("activity").activity(rank_);
  }

  void barrier(Call const& call = "barrier") const { group(call.operation()).meet(rank_, call); }

  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine, Call const& call = "all_gather") const {
    return group(call.operation()).all_gather(rank_, mine, call);
  }

  [[nodiscard]] ThreadsCommunicator split(int color, int key, Call const& call = "split") const {
    std::vector<int> const members = group(call.operation()).same_color(rank_, color, key, call);
    if (members.empty()) {
      return {};
    }
    std::size_t at = 0;
    while (members[at] != rank_) {
      ++at;
    }
    return {group_->child(members), static_cast<int>(at)};
  }

  /// Messages go straight from the sender's memory into the receiver's.
  /// @throws MismatchError on every rank, before anything is moved, if a message of any rank has no
  ///         counterpart of its size.
  template <class Space>
  void exchange(std::span<Message const> sends,
                std::span<Message> receives,
                typename Space::Stream stream = {},
                Call const& call = "exchange") const {
    detail::require_group(group_ != nullptr, call.operation());
    stream.synchronize();
    auto phase = copy_phase(stream);
    detail::Offers const offers(all_gather(detail::pack_offer(sends, receives), call),
                                world_ranks());
    auto const matches = offers.match(rank_);
    for (Message const& one : sends) {
      detail::counts().process_bytes.add(one.peer == rank_ ? 0 : one.bytes);
    }
    for (std::size_t i = 0; i < receives.size(); ++i) {
      Message const& wanted = receives[i];
      Message const offer = offers.message(wanted.peer, matches[i]);
      StridedCopy const copy{offer.data, wanted.data, Shape{static_cast<index_t>(wanted.bytes)},
                             Shape{1},   Shape{1},    1};
      Space::copy(copy, stream);
    }
    stream.synchronize();
    phase.end();
    barrier(call);
    phase.close();
  }

  /// Ends the job: every rank that waits, or will, gets RankFailed with these words.
  /// @param error  what the launch throws.
  void report_failure(std::string const& what, std::exception_ptr error) const {
    group("report_failure").fail(rank_, what, std::move(error));
  }

  /// A time in which ranks copy from and to each other's memory; see `detail::CopyPhase`.
  template <class Stream>
  [[nodiscard]] detail::CopyPhase<Stream> copy_phase(Stream stream) const {
    return {group_, rank_, stream};
  }

 private:
  [[nodiscard]] detail::ThreadGroup& group(char const* operation) const {
    detail::require_group(group_ != nullptr, operation);
    return *group_;
  }

  std::shared_ptr<detail::ThreadGroup> group_;
  int rank_ = 0;
};

namespace detail {

/// Runs `body(rank, communicator)` on every rank and rethrows the first failure.
template <class Body>
void run_threads(threads const& options, Body&& body) {
  if (options.ranks < 1) {
    throw InvalidArgument("shardmesh::launch: threads{" + std::to_string(options.ranks) +
                          "} starts no rank; give at least 1");
  }
  auto const job = std::make_shared<ThreadsJob>(options.ranks, options.timeout);
  std::vector<int> world;
  for (int rank = 0; rank < options.ranks; ++rank) {
    world.push_back(rank);
  }
  auto const group = std::make_shared<ThreadGroup>(job, std::move(world));
  {
    std::vector<std::jthread> ranks;
    for (int rank = 0; rank < options.ranks; ++rank) {
      auto const run = [&body, &job, &group, rank] {
        try {
          ThreadsCommunicator communicator(group, rank);
          body(rank, communicator);
          job->leave(rank);
        } catch (std::exception const& error) {
          job->fail(rank, error.what(), std::current_exception());
        } catch (...) {
          job->fail(rank, "an exception that is no std::exception", std::current_exception());
        }
      };
      try {
        ranks.emplace_back(run);
      } catch (std::exception const& error) {  // those that run must not wait for it
        std::string const what = concat("its thread cannot be started (", error.what(),
                                        "); the system's limits allow fewer ranks");
        job->fail(rank, what,
                  std::make_exception_ptr(CommError(
                      concat("shardmesh::launch: rank ", std::to_string(rank), ": ", what))));
        break;
      }
    }
  }
  if (job->error()) {
    std::rethrow_exception(job->error());
  }
}

}  // namespace detail

/// Runs `body(communicator)` on every rank, each a thread of this process, and waits for all.
/// A rank that throws wakes the others, which get RankFailed at their next or pending call.
/// @throws what the first failing rank threw.
template <class Body>
void launch(threads const& options, Body&& body) {
  detail::run_threads(options,
                      [&body](int, ThreadsCommunicator& communicator) { body(communicator); });
}

}  // namespace v0
}  // namespace shardmesh
