// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <shardmesh/comm/call.hpp>
#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/detail/link.hpp>
#include <shardmesh/comm/detail/presence.hpp>
#include <shardmesh/comm/detail/socket.hpp>
#include <shardmesh/comm/detail/waiting.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The connections of one rank of a group of processes: rank 0 has one to each other rank, these have one
/// to rank 0. It knows who has ended, failed or hangs.
///
/// Between calls a thread looks after the connections several times a second: it tells the others that
/// this process runs and what it does, and passes on who has failed, so that no rank that is busy hides
/// another. In a call the calling thread does that.
class SocketStar {
 public:
  using Bytes = std::vector<std::byte>;

  /// A connection, what is known of its other end, and what has come before it was asked for.
  struct Peer {
    Link link;
    Presence presence;
    std::deque<Frame> frames;
  };

  /// @param links  rank 0: by rank, its own closed; others: that to rank 0 alone.
  SocketStar(std::vector<Link> links,
             int rank,
             std::vector<int> world_ranks,
             Limits limits,
             std::shared_ptr<Activity> activity)
      : rank_(rank),
        world_(std::move(world_ranks)),
        limits_(limits),
        activity_(std::move(activity)),
        beat_(std::clamp(
            std::min(limits.call, limits.silence) / 8, Milliseconds(20), Milliseconds(500))),
        tick_(std::min(beat_, Milliseconds(100))) {
    for (Link& link : links) {
      peers_.emplace_back().link = std::move(link);
    }
    try {
      background_ = std::thread([this] { look_after(); });
    } catch (std::system_error const& error) {
      throw CommError(concat("shardmesh: cannot start the thread that looks after connections: ",
                             error.what()));
    }
  }
  SocketStar(SocketStar const&) = delete;
  SocketStar& operator=(SocketStar const&) = delete;
  ~SocketStar() {
    {
      std::lock_guard const lock(mutex_);
      over_ = true;
    }
    woken_.notify_all();
    background_.join();
    Deadline const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    try {
      if (activity_->has_cause() && !failure_) {
        fail_with_the_others();
      }
    } catch (...) {  // they see that this rank leaves
    }
    for (Peer& peer : peers_) {
      if (peer.link.is_open()) {
        peer.link.queue(FrameKind::leave, 0, 0, {});
        static_cast<void>(peer.link.send());
      }
    }
    for (Peer& peer : peers_) {
      peer.link.close(deadline);
    }
  }

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] std::vector<int> const& world() const noexcept { return world_; }
  [[nodiscard]] Limits const& limits() const noexcept { return limits_; }
  [[nodiscard]] std::shared_ptr<Activity> const& activity() const noexcept { return activity_; }
  /// @pre the caller has `enter`ed.
  [[nodiscard]] Peer& peer(std::size_t i) { return peers_[i]; }

  /// For the time of a call: no other thread uses the connections.
  [[nodiscard]] std::unique_lock<std::mutex> enter() { return std::unique_lock(mutex_); }

  /// An address of this process that the others reach.
  [[nodiscard]] std::string local_address() const {
    return peers_.empty() || !peers_.back().link.is_open()
               ? "127.0.0.1"
               : peers_.back().link.socket().local_address();
  }

  /// Tells rank 0, or from rank 0 everybody, why this rank ends. Best effort.
  void report_failure(std::string const& what) noexcept {
    try {
      std::lock_guard const lock(mutex_);
      if (failure_ && !only_mine_) {
        return;  // all have heard what was first
      }
      std::string const who = "shardmesh: rank " + std::to_string(world_[0]) + " failed: ";
      // Others: rank 0 says who.
      tell_failure(rank_, rank_ == 0 ? who + what : what,
                   rank_ == 0 && is_job_ ? outside(world_[0]) : 0);
      keep(CommError("shardmesh: this rank has told the others that it failed: " + what));
    } catch (...) {  // the others see the end of the connection instead
    }
  }

  /// Whether what arrives is read: not while rank 0 brings a call to its end, so that all ranks get the
  /// same of it, whoever fails right after.
  enum class Reading { yes, no };

  /// Looks after the connections until `peer_is_done` of each peer that takes part.
  /// @param missed  what a peer that is given up has not done.
  /// @throws the failure of the group, if there is one and not all are done.
  template <class Done>
  void wait_until(Done peer_is_done, char const* missed, Reading reading = Reading::yes) {
    Waiting const waiting;
    Time const since = clock_.now();
    Relay relay(activity_);
    for (bool first = true;; first = false) {
      serve(first ? last_place_ : Place::in_call, reading);  // nobody needs to know of a short wait
      bool all = true;
      for (std::size_t i = 0; i < peers_.size(); ++i) {
        Peer const& peer = peers_[i];
        if (!peer.link.is_open() || peer_is_done(i)) {
          continue;
        }
        all = false;
        if (failure_) {
          std::rethrow_exception(failure_);
        }
        if (peer.link.has_ended() || peer.link.has_left()) {
          give_up(i, RankFailed(world_rank(i), name(i) + " has ended"), !peer.link.has_left());
          std::rethrow_exception(failure_);
        }
        if (!first) {
          std::string const late =
              peer.presence.given_up(name(i) + missed, since, clock_.now(), limits_);
          if (!late.empty()) {
            fail_all(i, TimeoutError(late));
          }
          relay.look(world_rank(i), peer.presence);
        }
      }
      if (all) {
        return;
      }
      relay.pass_on();
      wait_for_traffic(first ? std::min(tick_, Milliseconds(10)) : tick_, reading);
    }
  }

  /// Tells the others, then throws, now and at every later call.
  template <class E>
  [[noreturn]] void fail_all(std::size_t failed, E const& error) {
    give_up(failed, error);
    std::rethrow_exception(failure_);
  }

  [[noreturn]] void refuse(std::size_t from) {
    fail_all(from, CommError(name(from) + " sent something that is no message of this program"));
  }

  /// @throws the failure of the group, if it has failed.
  void require_good() const {
    if (failure_) {
      std::rethrow_exception(failure_);
    }
  }

  /// Forgets what is still to be sent: it lies in the memory of the call.
  void drop_all() {
    for (Peer& peer : peers_) {
      peer.link.drop();
    }
  }

  [[nodiscard]] std::string name(std::size_t peer) const {
    return concat("shardmesh: rank ", std::to_string(world_[rank_ == 0 ? peer : 0]));
  }
  [[nodiscard]] int world_rank(std::size_t peer) const { return world_[rank_ == 0 ? peer : 0]; }

  [[nodiscard]] static std::string text_of(Bytes const& bytes) {
    return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
  }

 private:
  using Milliseconds = std::chrono::milliseconds;
  using Time = RunningClock::Time;
  using Place = Presence::Place;
  static constexpr std::size_t small = 4096;  // what says no more than that the other side lives

  void look_after() {
    std::unique_lock lock(mutex_);
    while (!over_) {
      try {
        serve(Place::elsewhere, Reading::yes);
      } catch (...) {  // the next call throws it
        keep(std::current_exception());
      }
      woken_.wait_for(lock, tick_);
    }
  }

  /// Takes what has arrived and sends what is due. The group fails if anybody has.
  void serve(Place place, Reading reading) {
    Time const now = clock_.now();
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      Peer& peer = peers_[i];
      if (!peer.link.is_open()) {
        continue;
      }
      if (reading == Reading::yes) {
        take_from(i, now);
      }
      if (peer.link.send() > 0) {
        peer.presence.moved(now);
      }
    }
    if (activity_->has_cause() && !failure_) {
      fail_with_the_others();
    }
    if (place != last_place_ || now - last_beat_ >= beat_ || beats_differ()) {
      send_beats(place, now);
    }
  }

  void take_from(std::size_t i, Time now) {
    Peer& peer = peers_[i];
    try {
      if (std::size_t const received = peer.link.receive(); received > small) {
        peer.presence.moved(now);
      } else if (received > 0) {
        peer.presence.heard(now);
      }
      sort_frames(i, now);
    } catch (NoFrame const&) {
      refuse(i);
    }
    if (peer.link.has_ended() && !peer.link.has_left() && peer.frames.empty()) {
      give_up(i, RankFailed(world_rank(i), name(i) + " has ended"), true);
    }
  }

  void sort_frames(std::size_t from, Time now) {
    Peer& peer = peers_[from];
    while (peer.link.has_frame()) {
      Frame frame = peer.link.take();
      if (frame.kind == FrameKind::beat) {
        Activity::State const state{false, frame.number, text_of(frame.bytes),
                                    static_cast<int>(frame.call >> 8 & 255U)};
        peer.presence.told(now, static_cast<Place>(std::min<std::uint64_t>(frame.call & 255U, 2)),
                           state);
      } else if (frame.kind == FrameKind::failure) {
        hear_failure(from, frame);
      } else if (peer.frames.size() > world_.size()) {
        throw NoFrame{};
      } else {
        peer.frames.push_back(std::move(frame));
      }
    }
  }

  void hear_failure(std::size_t from, Frame const& frame) {
    std::string const what = readable(text_of(frame.bytes));
    if (frame.call != 0) {  // of the job
      RankFailed const failed(static_cast<int>(frame.call - 1), what);
      bool const is_news = !failure_;
      keep(failed);
      activity_->note_cause(failed.rank(), what);
      if (rank_ == 0 && is_news) {
        tell_failure(0, what, frame.call);
      }
    } else if (rank_ == 0) {
      give_up(from, RankFailed(world_[from], name(from) + " failed: " + what), is_job_);
    } else {
      keep(RankFailed(world_[static_cast<std::size_t>(frame.number) % world_.size()], what));
    }
  }

  [[nodiscard]] bool beats_differ() const { return activity_->state().working != last_working_; }

  void send_beats(Place place, Time now) {
    Activity::State const state = activity_->state();
    Place const shown = place == Place::elsewhere && state.working ? Place::working : place;
    std::string const what = state.what.substr(0, 200);
    for (Peer& peer : peers_) {
      // A frame that is under way says as much.
      if (peer.link.is_open() && !peer.link.has_left() && peer.link.is_idle()) {
        peer.link.queue(FrameKind::beat, state.progress,
                        static_cast<std::uint64_t>(shown) | static_cast<unsigned>(state.hops) << 8,
                        std::as_bytes(std::span(what)));
        static_cast<void>(peer.link.send());
      }
    }
    last_place_ = place;
    last_working_ = state.working;
    last_beat_ = now;
  }

  // Failure.

  /// How a message says that a rank failed in the job, not in this group alone.
  [[nodiscard]] static std::uint64_t outside(int rank) {
    return static_cast<std::uint64_t>(rank) + 1;
  }

  void keep(std::exception_ptr error) {
    if (!failure_) {
      failure_ = std::move(error);
    }
  }
  template <class E>
  void keep(E const& error) {
    keep(std::make_exception_ptr(error));
  }

  /// A rank of the job has failed in another group.
  void fail_with_the_others() {
    auto const cause = activity_->cause();
    keep(RankFailed(cause->rank, cause->what));
    tell_failure(0, cause->what, outside(cause->rank));
  }

  /// The group meets no more; rank 0 tells the others.
  /// @param of_job  whether all groups of the job are to fail for it.
  template <class E>
  void give_up(std::size_t failed, E const& error, bool of_job = false) {
    if (failure_) {
      return;
    }
    keep(error);
    std::uint64_t cause = 0;
    if constexpr (std::is_same_v<E, RankFailed>) {
      if (of_job) {
        activity_->note_cause(error.rank(), error.what());
        cause = outside(error.rank());
      }
    }
    only_mine_ = rank_ != 0;
    if (rank_ == 0) {
      tell_failure(static_cast<int>(failed), error.what(), cause);
    }
  }

  /// Sends all that listen a last message, for a second at most.
  /// @param cause  `outside` of the rank that failed, if it failed in the job.
  void tell_failure(int failed, std::string const& what, std::uint64_t cause = 0) {
    std::string const words = what.substr(0, 60'000);
    for (Peer& peer : peers_) {
      if (peer.link.is_open()) {
        peer.link.queue(FrameKind::failure, static_cast<std::uint64_t>(failed), cause,
                        std::as_bytes(std::span(words)));
      }
    }
    Deadline const deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (std::any_of(peers_.begin(), peers_.end(), [](Peer& peer) {
      static_cast<void>(peer.link.send());
      return peer.link.is_open() && !peer.link.is_idle();
    })) {
      if (std::chrono::steady_clock::now() > deadline) {
        break;
      }
      wait_for_traffic(Milliseconds(10), Reading::no);
    }
    drop_all();
  }

  /// Sleeps until something arrives (or can be sent).
  void wait_for_traffic(Milliseconds most, Reading reading) {
    std::vector<pollfd> entries;
    for (Peer const& peer : peers_) {
      bool const listens = reading == Reading::yes && peer.link.is_open() && !peer.link.has_ended();
      bool const sends = peer.link.is_open() && !peer.link.is_idle();
      if (listens || sends) {
        entries.push_back({peer.link.descriptor(),
                           static_cast<short>((listens ? POLLIN : 0) | (sends ? POLLOUT : 0)), 0});
      }
    }
    ::poll(entries.data(), entries.size(), static_cast<int>(most.count()));
  }

  int rank_;
  std::vector<int> world_;
  Limits limits_;
  std::shared_ptr<Activity> activity_;
  Milliseconds beat_;        // between two words of what this rank does
  Milliseconds tick_;        // between two looks
  std::vector<Peer> peers_;  // rank 0: by rank, its own closed; others: rank 0 alone
  bool is_job_ = activity_->claim_job();
  std::exception_ptr failure_;  // why the group meets no more
  bool only_mine_ = false;      // the others have not been told of it
  RunningClock clock_;
  Place last_place_ = Place::elsewhere;
  bool last_working_ = false;
  Time last_beat_{};

  std::mutex mutex_;  // whoever holds it looks after the connections
  std::condition_variable woken_;
  bool over_ = false;
  std::thread background_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
