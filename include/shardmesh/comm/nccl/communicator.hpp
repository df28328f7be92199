// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <nccl.h>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/nccl/handle.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>

namespace shardmesh::inline v0 {

/// A group of ranks whose device memory travels by NCCL. What ranks tell each other on the host goes
/// through `Control` (threads of one process, or sockets between processes), and so do tensors in
/// host memory.
template <Communicator Control>
class NcclCommunicator {
 public:
  static constexpr bool shared_address_space = false;
  template <class Space>
  static constexpr bool moves = std::is_same_v<Space, CudaMemory> || Control::template moves<Space>;

  NcclCommunicator() = default;

  /// Connects the ranks of `control`; each has its own device current.
  /// @throws CommError, TimeoutError
  /// @collective over `control`.
  NcclCommunicator(Control control, std::chrono::milliseconds timeout)
      : control_(std::move(control)), timeout_(timeout) {
    ncclUniqueId id{};
    if (control_.rank() == 0) {
      nccl::check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    }
    auto const ids = all_gather_value(control_, id);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm = nullptr;
    nccl::check(ncclCommInitRankConfig(&comm, control_.size(), ids[0], control_.rank(), &config),
                "ncclCommInitRankConfig");
    adopt(comm, "ncclCommInitRankConfig");
  }

  /// Uses a communicator of the host program, which keeps owning it, and must keep it alive.
  /// @param control connects the same ranks in the same order.
  [[nodiscard]] static NcclCommunicator from_native_handle(ncclComm_t comm,
                                                           Control control,
                                                           std::chrono::milliseconds timeout) {
    NcclCommunicator result;
    result.control_ = std::move(control);
    result.timeout_ = timeout;
    result.native_ = comm;
    result.side_ = std::make_shared<nccl::SideStream>();
    return result;
  }

  [[nodiscard]] explicit operator bool() const noexcept { return native_ != nullptr; }
  [[nodiscard]] int rank() const noexcept { return control_.rank(); }
  [[nodiscard]] int size() const noexcept { return control_.size(); }
  [[nodiscard]] std::vector<int> world_ranks() const { return control_.world_ranks(); }
  [[nodiscard]] ncclComm_t native_handle() const noexcept { return native_; }
  [[nodiscard]] Control const& control() const noexcept { return control_; }

  void barrier() const { control_.barrier(); }
  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine) const {
    return control_.all_gather(mine);
  }

  [[nodiscard]] NcclCommunicator split(int color, int key) const {
    NcclCommunicator result;
    result.control_ = control_.split(color, key);
    result.timeout_ = timeout_;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm = nullptr;
    nccl::check(ncclCommSplit(native_, color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &comm, &config),
                "ncclCommSplit", native_);
    nccl::wait_ready(native_, "ncclCommSplit", timeout_);
    if (color >= 0) {
      result.adopt(comm, "ncclCommSplit");
    }
    return result;
  }

  /// One grouped exchange, ordered on the stream. Messages to oneself are copies.
  template <class Space>
  void exchange(std::span<Message const> sends,
                std::span<Message> receives,
                typename Space::Stream stream = {}) const {
    if constexpr (std::is_same_v<Space, CudaMemory>) {
      exchange_device(sends, receives, stream);
    } else {
      control_.template exchange<Space>(sends, receives, stream);
    }
  }

 private:
  void exchange_device(std::span<Message const> sends,
                       std::span<Message const> receives,
                       CudaStream caller) const {
    bool const special = caller.handle == nullptr || caller.handle == cudaStreamLegacy ||
                         caller.handle == cudaStreamPerThread;
    cudaStream_t const stream = special ? side_->get() : caller.handle;
    if (special) {
      side_->follow(caller);
    }
    {
      nccl::Group const group(native_);
      for (Message const& one : sends) {
        if (one.peer != rank() && one.bytes > 0) {
          nccl::check(ncclSend(one.data, one.bytes, ncclUint8, one.peer, native_, stream),
                      "ncclSend", native_);
        }
      }
      for (Message const& one : receives) {
        if (one.peer != rank() && one.bytes > 0) {
          nccl::check(ncclRecv(one.data, one.bytes, ncclUint8, one.peer, native_, stream),
                      "ncclRecv", native_);
        }
      }
    }
    nccl::wait_ready(native_, "ncclGroupEnd", timeout_);
    if (special) {
      side_->precede(caller);
    }
    copy_own(sends, receives, caller);
  }

  void adopt(ncclComm_t comm, char const* call) {
    owner_ = std::make_shared<nccl::Handle>(comm, timeout_);
    side_ = std::make_shared<nccl::SideStream>();
    native_ = comm;
    nccl::wait_ready(comm, call, timeout_);
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
  std::shared_ptr<nccl::SideStream> side_;
  std::shared_ptr<nccl::Handle> owner_;
  ncclComm_t native_ = nullptr;
  std::chrono::milliseconds timeout_ = std::chrono::seconds(60);
};

}  // namespace shardmesh::inline v0
