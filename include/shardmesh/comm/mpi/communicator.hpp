// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <mpi.h>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/detail/offers.hpp>
#include <shardmesh/comm/detail/waiting.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/comm/mpi/detail/job.hpp>
#include <shardmesh/comm/mpi/detail/traffic.hpp>

namespace shardmesh {
inline namespace v0 {

/// A group of processes of an MPI job; tensors in host memory travel directly between pairs of ranks.
/// The control channel of NCCL processes as well.
///
/// Every wait has a deadline. A rank that misses it, and one that throws, makes every later call of
/// this job throw on every rank. What MPI itself does when a process dies is not ours to change: its
/// launcher kills the others.
class MpiCommunicator {
 public:
  static constexpr bool shared_address_space = false;
  template <class Space>
  static constexpr bool moves = Space::host_accessible;

  MpiCommunicator() = default;

  /// Uses a communicator of the host program, which keeps owning it: its messages do not meet ours,
  /// because these travel on a duplicate. Ranks are numbered as in `comm`.
  ///
  /// Calls may come from several threads if MPI was initialised with MPI_THREAD_SERIALIZED and the
  /// host program itself calls MPI in none of them at the same time (or with MPI_THREAD_MULTIPLE);
  /// otherwise from the thread that initialised MPI alone.
  ///
  /// With MPI_THREAD_MULTIPLE on all ranks a thread of each answers those that wait for it, until
  /// MPI_Finalize begins, and all of `Limits` means what it says. With less, `silence` has no meaning: a
  /// rank that is stopped or cut off while it says that it is `Working` is waited for up to `progress`.
  ///
  /// @param timeout how long a rank waits for others before it gives up.
  /// @throws InvalidArgument if MPI does not run or `comm` connects two groups; TimeoutError if not
  ///         all ranks come; CommError
  /// @collective over `comm`.
  [[nodiscard]] static MpiCommunicator from_native_handle(MPI_Comm comm, Limits timeout = {}) {
    int started = 0;
    int over = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&over);
    if (started == 0 || over != 0 || comm == MPI_COMM_NULL) {
      throw InvalidArgument(std::string("shardmesh::MpiCommunicator: ") +
                            (started == 0 ? "MPI is not initialised; call MPI_Init_thread first"
                             : over != 0  ? "MPI has been finalized; nothing can be sent any more"
                                          : "MPI_COMM_NULL has no ranks; only members of a "
                                            "communicator can adopt it"));
    }
    MpiCommunicator world;
    world.job_ = std::make_shared<detail::MpiJob>(comm, timeout);
    world.members_.resize(static_cast<std::size_t>(world.job_->size()));
    std::iota(world.members_.begin(), world.members_.end(), 0);
    world.rank_ = world.job_->rank();
    world.tag_ = detail::MpiJob::world_tag;
    return world;
  }

  [[nodiscard]] explicit operator bool() const noexcept { return job_ != nullptr; }
  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return static_cast<int>(members_.size()); }
  [[nodiscard]] std::vector<int> world_ranks() const { return members_; }
  [[nodiscard]] std::chrono::milliseconds timeout() const {
    detail::require_group(job_ != nullptr, "timeout");
    return job_->timeout();
  }

  /// What this rank does between its calls; see `Working`.
  [[nodiscard]] std::shared_ptr<detail::Activity> const& activity() const {
    detail::require_group(job_ != nullptr, "activity");
    return job_->activity();
  }

  void barrier(Call const& call = "barrier") const { static_cast<void>(gather({}, call)); }

  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine, Call const& call = "all_gather") const {
    return gather(mine, call);
  }

  [[nodiscard]] MpiCommunicator split(int color, int key, Call const& call = "split") const {
    struct Wish {
      int color;
      int key;
      int tag;  // the first one that no group of this rank has
    };
    detail::require_group(job_ != nullptr, call.operation());
    Wish const wish{color, key, job_->next_tag()};
    std::vector<Wish> wishes;
    for (auto const& raw : gather(std::as_bytes(std::span(&wish, 1)), call)) {
      std::memcpy(&wishes.emplace_back(), raw.data(), sizeof(Wish));
    }
    MpiCommunicator group;
    std::vector<int> chosen;
    for (int rank = 0; rank < size(); ++rank) {
      Wish const& its = wishes[static_cast<std::size_t>(rank)];
      if (color >= 0 && its.color == color) {
        chosen.push_back(rank);
        group.tag_ = std::max(group.tag_, its.tag);
      }
    }
    if (chosen.empty()) {
      return {};
    }
    std::sort(chosen.begin(), chosen.end(), [&wishes](int a, int b) {
      return std::pair(wishes[static_cast<std::size_t>(a)].key, a) <
             std::pair(wishes[static_cast<std::size_t>(b)].key, b);
    });
    job_->take_tag(group.tag_);
    group.job_ = job_;
    group.rank_ = static_cast<int>(std::find(chosen.begin(), chosen.end(), rank_) - chosen.begin());
    for (int rank : chosen) {
      group.members_.push_back(members_[static_cast<std::size_t>(rank)]);
    }
    return group;
  }

  /// Messages straight between pairs of ranks, of any length. If it throws anything but
  /// MismatchError, the memory of the messages must be left alone until the program ends.
  /// @throws MismatchError on every rank, before anything is moved, if a message of any rank has no
  ///         counterpart of its size.
  template <class Space>
  void exchange(std::span<Message const> sends,
                std::span<Message> receives,
                typename Space::Stream stream = {},
                Call const& call = "exchange") const {
    stream.synchronize();
    detail::Offers const offers(gather(detail::pack_offer(sends, receives), call), members_);
    offers.count_sent_by(rank_);
    detail::MpiTraffic traffic(*job_, tag_, call.operation());
    std::vector<Message> to_itself;
    for (Message const& one : receives) {
      if (one.peer == rank_) {
        to_itself.push_back(one);
      } else if (one.bytes > 0) {
        traffic.receive(in_job(one.peer), {static_cast<std::byte*>(one.data), one.bytes});
      }
    }
    auto own = to_itself.begin();
    for (Message const& one : sends) {
      if (one.peer == rank_) {
        std::copy_n(static_cast<std::byte const*>(one.data), one.bytes,
                    static_cast<std::byte*>((own++)->data));
      } else if (one.bytes > 0) {
        traffic.send(in_job(one.peer), {static_cast<std::byte const*>(one.data), one.bytes});
      }
    }
    traffic.wait();
  }

  /// Tells all ranks of the job why this one ends, and waits until they know, 2 s at most.
  void report_failure(std::string const& what) const noexcept {
    try {
      detail::require_group(job_ != nullptr, "report_failure");
      job_->report_failure(what);
    } catch (...) {  // the others see a timeout instead
    }
  }

 private:
  struct Header {
    std::uint64_t call;  ///< its fingerprint
    std::uint64_t bytes;
  };
  /// What a rank sends first: a header and as many bytes as fit. The rest follows.
  struct Frame {
    static constexpr std::size_t room = 1024 - sizeof(Header);
    Header header;
    std::array<std::byte, room> bytes;
  };

  [[nodiscard]] int in_job(int rank) const { return members_[static_cast<std::size_t>(rank)]; }

  using Bytes = std::vector<std::byte>;

  [[nodiscard]] std::vector<Bytes> gather(std::span<std::byte const> mine, Call const& call) const {
    detail::count_meeting();
    std::vector<std::uint64_t> calls;
    std::vector<Bytes> all = gather(mine, call.fingerprint(), call.operation(), calls);
    if (std::size_t const other = detail::first_other(calls); other > 0) {
      explain(call, other);
    }
    return all;
  }

  /// Every rank sends to every other: all learn the same, and each knows who is missing.
  /// @param calls  gets the fingerprints of all ranks' calls.
  [[nodiscard]] std::vector<Bytes> gather(std::span<std::byte const> mine,
                                          std::uint64_t call,
                                          char const* operation,
                                          std::vector<std::uint64_t>& calls) const {
    detail::require_group(job_ != nullptr, operation);
    std::size_t const ranks = members_.size();
    auto const me = static_cast<std::size_t>(rank_);
    std::vector<Frame> frames(ranks);
    std::vector<Bytes> all(ranks);
    detail::MpiTraffic traffic(*job_, tag_, operation);
    frames[me].header = {call, mine.size()};
    auto const first = mine.first(std::min(mine.size(), Frame::room));
    auto const rest = mine.subspan(first.size());
    std::copy(first.begin(), first.end(), frames[me].bytes.begin());
    for (std::size_t step = 1; step < ranks; ++step) {  // nobody is everybody's first
      std::size_t const from = (me + ranks - step) % ranks;
      std::size_t const to = (me + step) % ranks;
      traffic.receive(members_[from], std::as_writable_bytes(std::span(&frames[from], 1)));
      traffic.send(members_[to],
                   std::as_bytes(std::span(&frames[me], 1)).first(sizeof(Header) + first.size()));
    }
    traffic.wait();
    for (std::size_t peer = 0; peer < ranks; ++peer) {
      all[peer].resize(frames[peer].header.bytes);
      auto const start = std::min(all[peer].size(), Frame::room);
      std::copy_n(frames[peer].bytes.begin(), start, all[peer].begin());
      if (peer == me) {
        std::copy(rest.begin(), rest.end(), all[me].begin() + static_cast<std::ptrdiff_t>(start));
        continue;
      }
      if (all[peer].size() > start) {
        traffic.receive(members_[peer], std::span(all[peer]).subspan(start));
      }
      if (!rest.empty()) {
        traffic.send(members_[peer], rest);
      }
    }
    traffic.wait();
    for (Frame const& frame : frames) {
      calls.push_back(frame.header.call);
    }
    return all;
  }

  /// All ranks have seen that the call of rank `other` is not rank 0's: each says what it is in.
  [[noreturn]] void explain(Call const& call, std::size_t other) const {
    std::string const mine = detail::CallText(call).packed();
    std::vector<std::uint64_t> calls;
    std::vector<Bytes> const all =
        gather(std::as_bytes(std::span(mine)), 0, call.operation(), calls);
    auto const text = [&all](std::size_t rank) {
      return detail::CallText::unpack(
          {reinterpret_cast<char const*>(all[rank].data()), all[rank].size()});
    };
    throw MismatchError(detail::mismatch_text(members_[0], text(0), members_[other], text(other)));
  }

  std::shared_ptr<detail::MpiJob> job_;
  std::vector<int> members_;  // ranks in the job, by rank in the group
  int rank_ = 0;
  int tag_ = 0;
};

}  // namespace v0
}  // namespace shardmesh
