// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/shared_region.hpp>
#include <shardmesh/comm/detail/waiting.hpp>
#include <shardmesh/comm/nccl/push_probe.hpp>
#include <shardmesh/comm/nccl/stream_values.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/memory/cuda/device_pool.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// How the ranks of a group that are processes of one host write into each other's device memory: the copy engines
/// do it at the full rate of the links, strided too, with no kernel and no packing (docs/decisions/0020).
///
/// Who receives posts the addresses of its places in memory that the processes share; who sends opens the segments of
/// that memory once (CUDA's handles for other processes), waits on its stream until the places may be written, writes,
/// and lets its stream say so; the receiver's stream waits for that. Streams wait for numbers in shared host memory,
/// which only grow: the host waits for nothing but the receiver's post.
///
/// Found out for each pair of ranks when the group is made, by writing into the other's memory. Ranks for which that
/// fails (another host, containers that share too little, links that do not reach) exchange messages as before.
class PeerPush {
 public:
  /// Where a receiver wants what belongs to one tensor of an exchange.
  struct Addresses {
    void* target = nullptr;
    void* staging = nullptr;
  };
  /// What a receiver has posted.
  struct Post {
    std::uint64_t number = 0;
    std::vector<Addresses> tensors;
  };

  /// Tensors of one exchange that can be pushed.
  static constexpr std::size_t most_tensors = 32;

  /// Variable that turns it off (0), and one that says from how many bytes between two ranks on it is used.
  static constexpr char const* variable = "SHARDMESH_PUSH";
  static constexpr char const* least_variable = "SHARDMESH_PUSH_FROM";

  /// @param wanted  is this rank's device memory of `cuda::device_pool()`?
  /// @returns nullptr where no rank of the group reaches another.
  /// @collective over `control`.
  template <Communicator Control>
  [[nodiscard]] static std::shared_ptr<PeerPush> connect(Control const& control, bool wanted) {
    detail::Housekeeping const uncounted;
    Call const call("NcclCommunicator");
    PushProbe const probe(wanted && !is_off() && static_cast<bool>(StreamValues::get()));
    auto const offers = all_gather_value(control, probe.offer(least_wanted()), call);
    auto push = std::make_shared<PeerPush>();
    push->take_seats(offers, static_cast<std::size_t>(control.rank()));
    push->share_region(control, call);
    return push->find_reached(control, probe, offers, call) ? push : nullptr;
  }

  PeerPush() = default;
  PeerPush(PeerPush const&) = delete;
  PeerPush& operator=(PeerPush const&) = delete;
  /// @pre no stream waits for its numbers, unless the job has failed.
  ~PeerPush() {
    if (registered_ && !released_) {
      static_cast<void>(cudaHostUnregister(region_.data()));
    } else if (released_) {
      static_cast<void>(new detail::SharedRegion(std::move(region_)));  // streams may look at it
    }
  }

  [[nodiscard]] bool reaches(int rank) const noexcept {
    return reached_[static_cast<std::size_t>(rank)];
  }
  /// Bytes from one rank to another from which on a push is quicker than a message.
  [[nodiscard]] std::size_t least_bytes() const noexcept { return least_; }

  /// Begins an exchange in which this rank receives: its places may be written behind what the stream has been given.
  /// @throws DeviceError
  void open(CudaStream stream) {
    numbers_.write(ready(me_), ++number_);
    numbers_.give(stream);
  }

  /// Tells `sender` where to write.
  /// @param call   compared with the sender's.
  /// @param check  is called while it waits for a sender that is several exchanges behind; may throw.
  /// @returns whether it will; if not (memory that is not the pool's), both exchange messages.
  template <class Check>
  [[nodiscard]] bool post(int sender,
                          Call const& call,
                          std::span<Addresses const> tensors,
                          Check const& check) {
    Box& box = box_of(me_, seat(sender));
    std::uint64_t const posted = box.posted;
    wait_until([&] { return posted - load(box.taken) < depth; }, check);
    Mail& mail = box.mails[posted % depth];
    mail.number = number_;
    mail.call = call.fingerprint();
    mail.tensors = tensors.size();
    bool shown = true;
    for (std::size_t i = 0; i < tensors.size() && shown; ++i) {
      shown = show_spot(tensors[i].target, mail.spots[2 * i]) &&
              show_spot(tensors[i].staging, mail.spots[2 * i + 1]);
    }
    mail.shown = shown;
    std::atomic_ref(box.posted).store(posted + 1, std::memory_order_release);
    return shown;
  }

  /// Waits until `receiver` has posted where to write, and looks there.
  /// @returns nothing if it has posted that it does not want that.
  /// @throws what `check` throws, DeviceError, CommError if the ranks are in different calls.
  template <class Check>
  [[nodiscard]] std::optional<Post> take(int receiver, Call const& call, Check const& check) {
    Box& box = box_of(seat(receiver), me_);
    std::uint64_t const taken = box.taken;
    {
      detail::Waiting const waiting;
      wait_until([&] { return load(box.posted) > taken; }, check);
    }
    Mail const& mail = box.mails[taken % depth];
    if (mail.call != call.fingerprint()) {
      throw CommError(detail::concat("shardmesh::", call.operation(), ": rank ",
                                     std::to_string(receiver),
                                     " of the group is in another call; every rank must make the "
                                     "same calls with the same arguments"));
    }
    std::optional<Post> result;
    if (mail.shown) {
      result.emplace(Post{mail.number, {}});
      for (std::size_t i = 0; i < mail.tensors; ++i) {
        result->tensors.push_back({open_spot(mail.spots[2 * i]), open_spot(mail.spots[2 * i + 1])});
      }
    }
    std::atomic_ref(box.taken).store(taken + 1, std::memory_order_release);
    return result;
  }

  /// The stream is to wait until the receiver's places may be written.
  void await_ready(int receiver, Post const& post) {
    numbers_.wait(ready(seat(receiver)), post.number);
  }
  /// The stream is to say that what it has written for the receiver is there.
  void tell(int receiver, Post const& post) {
    numbers_.write(arrived(seat(receiver), me_), post.number);
  }
  /// The stream is to wait until the sender's part of this exchange is there.
  void await_arrival(int sender) { numbers_.wait(arrived(me_, seat(sender)), number_); }
  /// Gives the stream what it is to say and to wait for, in this order.
  /// @throws DeviceError
  void give(CudaStream stream) { numbers_.give(stream); }

  /// What the exchanges of the group keep from one to the next: one `T`, made when it is first asked for.
  template <class T>
  [[nodiscard]] T& kept() {
    if (kept_ == nullptr) {
      kept_ = std::make_shared<T>();
    }
    return *static_cast<T*>(kept_.get());
  }

  /// The job has failed: nothing waits for these numbers any more, now and for as long as streams take to get there.
  void release() noexcept {
    if (released_.exchange(true) || !registered_) {
      return;
    }
    std::span<std::byte> const numbers(region_.data(), numbers_bytes());
    set_all(numbers);
    try {
      // Streams still write smaller numbers, and may come to a wait much later.
      std::thread([numbers] {
        auto const end = std::chrono::steady_clock::now() + std::chrono::hours(1);
        for (auto pause = std::chrono::milliseconds(1); std::chrono::steady_clock::now() < end;
             pause = std::min(pause * 2, std::chrono::milliseconds(100))) {
          std::this_thread::sleep_for(pause);
          set_all(numbers);
        }
      }).detach();
    } catch (std::exception const&) {  // no thread to be had: it was set once
    }
  }

 private:
  static constexpr std::uint64_t depth = 4;  // posts that a sender may be behind
  static constexpr std::size_t line = 64;    // bytes, a number each
  /// Ends every wait: streams compare the difference of two numbers with 0, so that the largest of all would be less.
  static constexpr std::uint64_t beyond_all = std::uint64_t{1} << 62;
  static_assert(static_cast<std::int64_t>(beyond_all - 1) >= 0 &&
                static_cast<std::int64_t>(beyond_all - (beyond_all >> 1)) >= 0);

  struct Mail {
    std::uint64_t number;
    std::uint64_t call;
    std::uint64_t tensors;
    bool shown;
    std::array<PeerSpot, 2 * most_tensors> spots;
  };
  /// From one receiver to one sender.
  struct Box {
    alignas(line) std::uint64_t posted;
    alignas(line) std::uint64_t taken;
    std::array<Mail, depth> mails;
  };

  /// The ranks of this host that may be reached have seats, in their order.
  void take_seats(std::vector<PushOffer> const& offers, std::size_t me) {
    for (PushOffer const& one : offers) {
      bool const is_local = offers[me].ready && one.ready && one.host == offers[me].host;
      seats_.push_back(is_local ? ranks_++ : -1);
      least_ = std::max(least_, one.least);
    }
    me_ = seats_[me];
  }

  /// The rank of the first seat makes the memory that all share.
  /// @collective
  template <Communicator Control>
  void share_region(Control const& control, Call const& call) {
    if (ranks_ > 1 && me_ == 0) {
      region_ = detail::SharedRegion::create(bytes_needed());
    }
    auto const names = all_gather_text(control, region_.name(), call);
    if (ranks_ > 1 && me_ != 0) {
      auto const first = std::find(seats_.begin(), seats_.end(), 0) - seats_.begin();
      std::string const& name = names[static_cast<std::size_t>(first)];
      region_ =
          name.empty() ? detail::SharedRegion() : detail::SharedRegion::open(name, bytes_needed());
    }
    registered_ = region_ && cudaHostRegister(region_.data(), numbers_bytes(),
                                              cudaHostRegisterPortable | cudaHostRegisterMapped) ==
                                 cudaSuccess;
    static_cast<void>(cudaGetLastError());
  }

  /// Each writes into the others' memory, and looks who has written into its own: a pair is reached if both have.
  /// @returns whether any is.
  /// @collective
  template <Communicator Control>
  [[nodiscard]] bool find_reached(Control const& control,
                                  PushProbe const& probe,
                                  std::vector<PushOffer> const& offers,
                                  Call const& call) {
    auto const me = static_cast<std::size_t>(control.rank());
    std::vector<std::byte> good(offers.size(), std::byte{0});
    for (std::size_t rank = 0; rank < offers.size(); ++rank) {
      bool const wrote =
          rank != me && seats_[rank] >= 0 && registered_ && PushProbe::write(offers[rank], me_);
      good[rank] = std::byte{wrote};
    }
    static_cast<void>(control.all_gather({}, call));
    region_.hide();
    for (std::size_t rank = 0; rank < offers.size(); ++rank) {
      bool const both = good[rank] != std::byte{0} && probe.has_word_of(seats_[rank]);
      good[rank] = std::byte{both};
    }
    auto const verdicts = control.all_gather(good, call);
    for (std::size_t rank = 0; rank < offers.size(); ++rank) {
      bool const reached = good[rank] != std::byte{0} && verdicts[rank][me] != std::byte{0};
      reached_.push_back(reached);
      if (rank > me && seats_[rank] >= 0 && !reached) {
        say_once(control.world_ranks()[me], control.world_ranks()[rank]);
      }
    }
    return std::find(reached_.begin(), reached_.end(), true) != reached_.end();
  }

  [[nodiscard]] static bool is_off() noexcept {
    char const* const text = std::getenv(variable);
    return text != nullptr && std::string_view(text) == "0";
  }
  [[nodiscard]] static std::size_t least_wanted() noexcept {
    char const* const text = std::getenv(least_variable);
    return text == nullptr ? std::size_t{1} << 16 : std::strtoull(text, nullptr, 10);
  }

  static void say_once(int rank, int other) {
    static std::atomic<bool> said = false;
    if (!said.exchange(true)) {
      detail::say(LogLevel::info, [&] {
        return detail::concat("shardmesh: ranks ", std::to_string(rank), " and ",
                              std::to_string(other),
                              ", processes of one host, do not reach each other's device memory; "
                              "NCCL carries what they exchange");
      });
    }
  }

  [[nodiscard]] static std::uint64_t load(std::uint64_t& number) noexcept {
    return std::atomic_ref(number).load(std::memory_order_acquire);
  }

  /// Looks without sleeping for a while, as the other rank is mostly about to come.
  template <class Done, class Check>
  static void wait_until(Done const& done, Check const& check) {
    for (std::size_t look = 0; !done(); ++look) {
      if (look % 64 == 63) {
        check();
        std::this_thread::yield();
      }
    }
  }

  [[nodiscard]] int seat(int rank) const noexcept { return seats_[static_cast<std::size_t>(rank)]; }

  // The region: a line for each rank that is ready, one for each pair, then the boxes.
  [[nodiscard]] std::size_t ranks() const noexcept { return static_cast<std::size_t>(ranks_); }
  [[nodiscard]] std::size_t numbers_bytes() const noexcept {
    constexpr std::size_t page = 4096;
    return ((ranks() + ranks() * ranks()) * line + page - 1) / page * page;
  }
  [[nodiscard]] std::size_t bytes_needed() const noexcept {
    return numbers_bytes() + ranks() * ranks() * sizeof(Box);
  }
  [[nodiscard]] std::size_t pair(int receiver, int sender) const noexcept {
    return static_cast<std::size_t>(receiver) * ranks() + static_cast<std::size_t>(sender);
  }
  [[nodiscard]] std::uint64_t* number_at(std::size_t index) const noexcept {
    return reinterpret_cast<std::uint64_t*>(region_.data() + index * line);
  }
  [[nodiscard]] std::uint64_t* ready(int seat) const noexcept {
    return number_at(static_cast<std::size_t>(seat));
  }
  [[nodiscard]] std::uint64_t* arrived(int receiver, int sender) const noexcept {
    return number_at(ranks() + pair(receiver, sender));
  }
  [[nodiscard]] Box& box_of(int receiver, int sender) const noexcept {
    return reinterpret_cast<Box*>(region_.data() + numbers_bytes())[pair(receiver, sender)];
  }

  static void set_all(std::span<std::byte> numbers) noexcept {
    for (std::size_t at = 0; at < numbers.size(); at += line) {
      std::atomic_ref(*reinterpret_cast<std::uint64_t*>(numbers.data() + at))
          .store(beyond_all, std::memory_order_release);
    }
  }

  std::vector<int>
      seats_;  // by rank: its place among the ranks of this host that may be reached, or -1
  std::vector<bool> reached_;  // by rank
  int ranks_ = 0;              // that have seats
  int me_ = -1;                // this rank's seat
  std::size_t least_ = 0;
  std::uint64_t number_ = 0;  // of the exchanges in which this rank received
  detail::SharedRegion region_;
  bool registered_ = false;
  StreamValues::Batch numbers_;
  std::shared_ptr<void> kept_;
  std::atomic<bool> released_ = false;
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
