// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/neighbours.hpp>
#include <shardmesh/comm/detail/waiting.hpp>
#include <shardmesh/comm/nccl/data_type.hpp>
#include <shardmesh/comm/nccl/family.hpp>
#include <shardmesh/comm/nccl/handle.hpp>
#include <shardmesh/comm/nccl/link.hpp>
#include <shardmesh/comm/nccl/operation_log.hpp>
#include <shardmesh/comm/nccl/peer_push.hpp>
#include <shardmesh/comm/nccl/watchdog.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>

namespace shardmesh {
inline namespace v0 {

/// A group of ranks whose device memory travels by NCCL. What ranks tell each other on the host goes
/// through `Control` (threads of one process, or sockets between processes), and so do tensors in
/// host memory.
///
/// Device work is ordered on the stream of the call, and the host does not wait for it. A watchdog
/// looks after everything under way: where a rank has died or failed, or an operation is overdue,
/// all communicators of the job are aborted; whatever waits for the device returns, its results
/// meaning nothing, and every call from then on throws the reason.
template <Communicator Control>
class NcclCommunicator {
 public:
  static constexpr bool shared_address_space = false;
  template <class Space>
  static constexpr bool moves = std::is_same_v<Space, CudaMemory> || Control::template moves<Space>;

  NcclCommunicator() = default;

  /// Connects the ranks of `control`; each has its own device current.
  /// @param timeout how long an operation may take before the job is given up.
  /// @param checks  how closely the ranks compare their calls; the same on all of them.
  /// @throws CommError, TimeoutError
  /// @collective over `control`.
  NcclCommunicator(Control control,
                   std::chrono::milliseconds timeout,
                   Checks checks = Checks::watched)
      : control_(std::move(control)), timeout_(timeout), checks_(checks) {
    ncclUniqueId id{};
    if (control_.rank() == 0) {
      nccl::check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    }
    auto const ids = all_gather_value(control_, id);
    auto const family =
        std::make_shared<nccl::Family>(control_.size(), ids[0], control_.rank(), timeout_);
    look_after(family);
    adopt(family, family->make_first(control_.rank(), timeout_), "world");
  }

  /// Uses a communicator of the host program, which keeps owning it: it must outlive this object, its
  /// copies and its splits. After a failure calls throw the reason as always, but what already waits
  /// in the host program's communicator is for the host program to abort.
  ///
  /// @param comm blocks or not; one that does not must be ready.
  /// @param control connects the same ranks in the same order.
  /// @collective over `control`.
  [[nodiscard]] static NcclCommunicator from_native_handle(ncclComm_t comm,
                                                           Control control,
                                                           std::chrono::milliseconds timeout,
                                                           Checks checks = Checks::watched) {
    NcclCommunicator result;
    result.control_ = std::move(control);
    result.timeout_ = timeout;
    result.checks_ = checks;
    result.look_after(std::make_shared<nccl::Family>());
    result.link_ = std::make_shared<Link>(result.watchdog_, result.family_, comm, false, "world");
    result.link_->neighbours = detail::Neighbours(result.control_, "NcclCommunicator");
    return result;
  }

  [[nodiscard]] explicit operator bool() const noexcept { return link_ != nullptr; }
  [[nodiscard]] int rank() const noexcept { return control_.rank(); }
  [[nodiscard]] int size() const noexcept { return control_.size(); }
  [[nodiscard]] std::vector<int> world_ranks() const { return control_.world_ranks(); }
  [[nodiscard]] ncclComm_t native_handle() const noexcept {
    return link_ ? link_->native : nullptr;
  }
  [[nodiscard]] Control const& control() const noexcept { return control_; }

  /// @throws RankFailed, TimeoutError or CommError if the job has failed. Costs next to nothing.
  void check() const { watchdog_->check(); }

  void barrier(Call const& call = "barrier") const {
    explained([&] {
      note(call);
      control_.barrier(call);
    });
  }
  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine, Call const& call = "all_gather") const {
    return explained([&] {
      note(call);
      return control_.all_gather(mine, call);
    });
  }

  [[nodiscard]] NcclCommunicator split(int color, int key, Call const& call = "split") const {
    return explained([&] {
      note(call);
      NcclCommunicator result;
      result.control_ = control_.split(color, key, call);
      result.timeout_ = timeout_;
      result.checks_ = checks_;
      result.family_ = family_;
      result.watchdog_ = watchdog_;
      ncclConfig_t config = nccl::Family::descendant();
      ncclComm_t comm = nullptr;
      int const number = ++link_->splits;
      {
        nccl::OperationLog::Entry const entry(link_->log, call);
        finish(ncclCommSplit(native_handle(), color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &comm,
                             &config),
               "ncclCommSplit");
      }
      if (color >= 0) {
        result.adopt(family_, comm,
                     link_->log.group() + "/" + std::to_string(number) + "." +
                         std::to_string(color));
      }
      return result;
    });
  }

  /// One grouped exchange, ordered on the stream. Messages to oneself are copies.
  template <class Space>
  void exchange(std::span<Message const> sends,
                std::span<Message> receives,
                typename Space::Stream stream = {},
                Call const& call = "exchange") const {
    if constexpr (std::is_same_v<Space, CudaMemory>) {
      exchange_device(sends, receives, stream, call);
    } else {
      explained([&] {
        note(call);
        control_.template exchange<Space>(sends, receives, stream, call);
      });
    }
  }

  /// How ranks of this host write into each other's memory; nullptr where they do not.
  template <class Space>
    requires std::is_same_v<Space, CudaMemory>
  [[nodiscard]] nccl::PeerPush* peer_push() const noexcept {
    return link_ ? link_->push.get() : nullptr;
  }

  /// One exchange of which `body(stream, check)` gives to the device what it likes, messages by `give`, and looks
  /// with `check()` whether the job has failed where it waits.
  /// @collective
  template <class Body>
  void operate(Call const& call, CudaStream stream, Body&& body) const {
    issue(call, stream, [&](cudaStream_t on) {
      body(CudaStream{on}, [this] { watchdog_->check(); });
      return ncclSuccess;
    });
  }
  /// Messages to other ranks, within `operate`.
  void give(std::span<Message const> sends,
            std::span<Message const> receives,
            CudaStream stream) const {
    if (!sends.empty() || !receives.empty()) {
      nccl::check(give_group(sends, receives, stream.handle), "ncclGroupEnd", native_handle());
    }
  }

  /// Counts what was sent within `operate` by other means.
  void count_sent(int peer, std::size_t bytes) const noexcept {
    link_->neighbours.count_sent(peer, bytes);
  }

  /// receive[i] = op over all ranks' send[i], on every rank; `send` may be `receive`. NCCL chooses the
  /// order of the terms: where they are rounded, last bits depend on it. (`redistribute` adds in
  /// ascending rank order.)
  /// @param count elements.
  /// @throws UnsupportedError if NCCL does not reduce the type: 16-bit and boolean integers, complex
  ///         numbers, and 8-bit floats but e4m3fn and e5m2.
  /// @collective
  template <class Space = CudaMemory>
    requires std::is_same_v<Space, CudaMemory>
  void all_reduce(DType dtype,
                  ReduceOp op,
                  void const* send,
                  void* receive,
                  std::size_t count,
                  typename Space::Stream stream = {}) const {
    ncclDataType_t const type = nccl::reducible_type(dtype, "all_reduce");
    Elements const what{dtype, count, std::string(to_string(op)), static_cast<int>(op)};
    issue(what.call("all_reduce"), stream, [&](cudaStream_t on) {
      return ncclAllReduce(send, receive, count, type, nccl::reduction(op), native_handle(), on);
    });
  }

  /// receive[i] = op over all ranks' send[rank * count + i]: each rank gets its part of the result.
  /// @param send `size() * count` elements; `receive`, `count` elements, may be this rank's part of it.
  /// @throws UnsupportedError as all_reduce.
  /// @collective
  template <class Space = CudaMemory>
    requires std::is_same_v<Space, CudaMemory>
  void reduce_scatter(DType dtype,
                      ReduceOp op,
                      void const* send,
                      void* receive,
                      std::size_t count,
                      typename Space::Stream stream = {}) const {
    ncclDataType_t const type = nccl::reducible_type(dtype, "reduce_scatter");
    Elements const what{dtype, count, std::string(to_string(op)), static_cast<int>(op)};
    issue(what.call("reduce_scatter"), stream, [&](cudaStream_t on) {
      return ncclReduceScatter(send, receive, count, type, nccl::reduction(op), native_handle(),
                               on);
    });
  }

  /// Every rank's `count` elements, by rank. Any type travels, as bytes.
  /// @param receive `size() * count` elements; `send` may be this rank's part of it.
  /// @collective
  template <class Space = CudaMemory>
    requires std::is_same_v<Space, CudaMemory>
  void all_gather(DType dtype,
                  void const* send,
                  void* receive,
                  std::size_t count,
                  typename Space::Stream stream = {}) const {
    Elements const what{dtype, count};
    issue(what.call("all_gather"), stream, [&](cudaStream_t on) {
      return ncclAllGather(send, receive, count * size_of(dtype), ncclUint8, native_handle(), on);
    });
  }

  /// Copies `count` elements of rank `root` to all. Any type travels, as bytes.
  /// @throws InvalidArgument if there is no such rank.
  /// @collective
  template <class Space = CudaMemory>
    requires std::is_same_v<Space, CudaMemory>
  void broadcast(DType dtype,
                 void const* send,
                 void* receive,
                 std::size_t count,
                 int root,
                 typename Space::Stream stream = {}) const {
    if (root < 0 || root >= size()) {
      throw InvalidArgument("shardmesh::broadcast: root " + std::to_string(root) +
                            " is no rank of a group of " + std::to_string(size()) +
                            "; give one from 0 to " + std::to_string(size() - 1));
    }
    Elements const what{dtype, count, "from rank " + std::to_string(root), root};
    issue(what.call("broadcast"), stream, [&](cudaStream_t on) {
      return ncclBroadcast(send, receive, count * size_of(dtype), ncclUint8, root, native_handle(),
                           on);
    });
  }

  /// The rank's thread fails: tells the other ranks, which get RankFailed.
  void report_failure(std::string const& what) const noexcept { watchdog_->fail(what); }

 private:
  using Watchdog = nccl::Watchdog<Control>;
  using Link = nccl::Link<Control>;

  /// What a collective of NCCL is called with, for comparing it between ranks.
  struct Elements {
    DType dtype;
    std::size_t count;
    std::string more = {};
    int number = 0;

    [[nodiscard]] std::string operator()() const {
      std::string text = std::to_string(count) + " elements of ";
      text += to_string(dtype);
      return more.empty() ? text : text + ", " + more;
    }
    [[nodiscard]] Call call(char const* operation) const {
      return {operation,
              Fingerprint()
                  .add(static_cast<std::uint64_t>(dtype))
                  .add(count)
                  .add(static_cast<std::uint64_t>(number)),
              *this};
    }
  };

  void look_after(std::shared_ptr<nccl::Family> family) {
    family_ = std::move(family);
    watchdog_ = std::make_shared<Watchdog>(control_.split(0, control_.rank()), family_, timeout_);
  }

  void adopt(std::shared_ptr<nccl::Family> const& family, ncclComm_t comm, std::string group) {
    watchdog_->check();
    link_ = std::make_shared<Link>(watchdog_, family, comm, true, std::move(group));
    link_->neighbours = detail::Neighbours(control_, "NcclCommunicator");
    if constexpr (!Control::shared_address_space) {
      bool const shows = detail::resource_in_use<CudaMemory>() == &cuda::device_pool();
      link_->push = nccl::PeerPush::connect(control_, shows);
      family->release_on_abort(link_->push);
    }
  }

  /// Lets the watchdog compare a call that does not go through NCCL.
  void note(Call const& call) const {
    link_->log.with_history([&call](nccl::CallHistory& history) { history.add(call); });
  }

  /// Runs what may fail because another rank has, and prefers the watchdog's reason.
  template <class F>
  auto explained(F&& f) const -> decltype(f()) {
    watchdog_->check();
    try {
      return f();
    } catch (CommError const&) {
      watchdog_->explain();
      throw;
    }
  }

  /// A communicator of the host program may be one that does not block. It is asked whether it is
  /// ready whatever the call has returned: NCCL 2.28's ncclCommSplit says success on a parent that
  /// does not block, while a thread still works on it and the new communicator is not there yet.
  void finish(ncclResult_t status, char const* call) const {
    ncclComm_t const comm = native_handle();
    nccl::check(status, call, comm);
    if (!link_->owner) {
      nccl::wait_ready(
          [&] {
            watchdog_->check();
            ncclResult_t state = ncclSuccess;
            nccl::check(ncclCommGetAsyncError(comm, &state), "ncclCommGetAsyncError", comm);
            return state;
          },
          call, timeout_);
    }
  }

  /// One operation: `give(stream)` gives it to NCCL and returns NCCL's status.
  template <class Give>
  void issue(Call const& call, CudaStream caller, Give&& give) const {
    detail::count_meeting();
    explained([&] {
      if (checks_ == Checks::full) {
        control_.barrier(call);
      }
      Link& link = *link_;
      bool const special = caller.handle == nullptr || caller.handle == cudaStreamLegacy ||
                           caller.handle == cudaStreamPerThread;
      nccl::SideStream* const side = special && link.side ? &*link.side : nullptr;
      cudaStream_t const stream = side != nullptr ? side->get() : caller.handle;
      if (side != nullptr) {
        side->follow(caller);
      }
      if (link.push != nullptr) {
        link.log.follow(stream);  // numbers that streams write must grow
      }
      {
        nccl::OperationLog::Entry entry(link.log, call);
        finish(give(stream), call.operation());
        entry.enqueued(stream);
      }
      if (side != nullptr) {
        side->precede(caller);
      }
    });
  }

  void exchange_device(std::span<Message const> sends,
                       std::span<Message const> receives,
                       CudaStream caller,
                       Call const& call) const {
    issue(call, caller, [&](cudaStream_t stream) { return give_group(sends, receives, stream); });
    copy_own(sends, receives, caller);
  }

  ncclResult_t give_group(std::span<Message const> sends,
                          std::span<Message const> receives,
                          cudaStream_t stream) const {
    ncclComm_t const comm = native_handle();
    nccl::Group group(comm);
    for (Message const& one : sends) {
      if (one.peer != rank() && one.bytes > 0) {
        nccl::check(ncclSend(one.data, one.bytes, ncclUint8, one.peer, comm, stream), "ncclSend",
                    comm);
        link_->neighbours.count_sent(one.peer, one.bytes);
      }
    }
    for (Message const& one : receives) {
      if (one.peer != rank() && one.bytes > 0) {
        nccl::check(ncclRecv(one.data, one.bytes, ncclUint8, one.peer, comm, stream), "ncclRecv",
                    comm);
      }
    }
    return group.end();
  }

  void copy_own(std::span<Message const> sends,
                std::span<Message const> receives,
                CudaStream stream) const {
    auto from = sends.begin();
    for (Message const& to : receives) {
      if (to.peer != rank() || to.bytes == 0) {
        continue;
      }
      while (from != sends.end() && (from->peer != rank() || from->bytes == 0)) {
        ++from;
      }
      if (from == sends.end() || from->bytes != to.bytes) {
        throw MismatchError("shardmesh::exchange: a message to oneself has no counterpart");
      }
      cuda::check(cudaMemcpyAsync(to.data, from->data, to.bytes, cudaMemcpyDefault, stream.handle),
                  "cudaMemcpyAsync");
      ++from;
    }
  }

  Control control_;
  std::shared_ptr<nccl::Family> family_;
  std::shared_ptr<Watchdog> watchdog_;
  std::shared_ptr<Link> link_;
  std::chrono::milliseconds timeout_ = std::chrono::seconds(60);
  Checks checks_ = Checks::watched;
};

}  // namespace v0
}  // namespace shardmesh
