// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/working.hpp>
#include <shardmesh/memory/host.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What a load asks of a communicator beyond `Communicator`: its ranks pass on what they read.
template <class Comm>
concept ExchangesHostMemory = requires(
    Comm const& comm, std::span<Message const> sends, std::span<Message> receives, Call call) {
  comm.template exchange<HostMemory>(sends, receives, HostStream{}, call);
};

/// The ranks of a save or a load, whatever engine connects them: a `Communicator` of one type, so that what is done
/// with files is compiled once for all engines, and can be compiled separately.
class AnyRanks {
 public:
  /// Whether it is so is known at run time only: see `copy_phase`.
  static constexpr bool shared_address_space = false;
  template <class Space>
  static constexpr bool moves = std::is_same_v<Space, HostMemory>;

  /// As the engine's own of this name, for host memory.
  class CopyPhase {
   public:
    CopyPhase() = default;
    CopyPhase(CopyPhase const&) = delete;
    CopyPhase& operator=(CopyPhase const&) = delete;
    virtual ~CopyPhase() = default;
    virtual void end() noexcept = 0;
    virtual void close() noexcept = 0;
  };

  AnyRanks() = default;
  template <class Comm>
    requires(!std::is_same_v<Comm, AnyRanks> && Communicator<Comm>)
  explicit AnyRanks(Comm const& comm) : group_(std::make_shared<GroupOf<Comm> const>(comm)) {}

  [[nodiscard]] explicit operator bool() const noexcept { return group_ && group_->is_there(); }
  [[nodiscard]] int rank() const { return group_->rank(); }
  [[nodiscard]] int size() const { return group_->size(); }
  [[nodiscard]] std::vector<int> world_ranks() const { return group_->world_ranks(); }
  [[nodiscard]] std::shared_ptr<Activity> activity() const { return group_->activity(); }
  void barrier(Call const& call = "barrier") const { group_->barrier(call); }
  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine, Call const& call = "all_gather") const {
    return group_->all_gather(mine, call);
  }
  [[nodiscard]] AnyRanks split(int color, int key, Call const& call = "split") const {
    return group_->split(color, key, call);
  }
  /// Messages of host memory.
  void exchange(std::span<Message const> sends,
                std::span<Message> receives,
                Call const& call) const {
    group_->exchange(sends, receives, call);
  }
  /// @returns nullptr for ranks that do not share an address space.
  [[nodiscard]] std::unique_ptr<CopyPhase> copy_phase() const { return group_->copy_phase(); }

 private:
  class Group {
   public:
    Group() = default;
    Group(Group const&) = delete;
    Group& operator=(Group const&) = delete;
    virtual ~Group() = default;
    [[nodiscard]] virtual bool is_there() const noexcept = 0;
    [[nodiscard]] virtual int rank() const = 0;
    [[nodiscard]] virtual int size() const = 0;
    [[nodiscard]] virtual std::vector<int> world_ranks() const = 0;
    [[nodiscard]] virtual std::shared_ptr<Activity> activity() const = 0;
    virtual void barrier(Call const& call) const = 0;
    [[nodiscard]] virtual std::vector<std::vector<std::byte>> all_gather(
        std::span<std::byte const> mine, Call const& call) const = 0;
    [[nodiscard]] virtual AnyRanks split(int color, int key, Call const& call) const = 0;
    virtual void exchange(std::span<Message const> sends,
                          std::span<Message> receives,
                          Call const& call) const = 0;
    [[nodiscard]] virtual std::unique_ptr<CopyPhase> copy_phase() const = 0;
  };

  template <class Phase>
  class CopyPhaseOf final : public CopyPhase {
   public:
    /// @param begin  returns the phase, which cannot be moved.
    template <class Begin>
    explicit CopyPhaseOf(Begin const& begin) : phase_(begin()) {}
    void end() noexcept override { phase_.end(); }
    void close() noexcept override { phase_.close(); }

   private:
    Phase phase_;
  };

  template <class Comm>
  class GroupOf final : public Group {
   public:
    explicit GroupOf(Comm comm) : comm_(std::move(comm)) {}
    [[nodiscard]] bool is_there() const noexcept override { return static_cast<bool>(comm_); }
    [[nodiscard]] int rank() const override { return comm_.rank(); }
    [[nodiscard]] int size() const override { return comm_.size(); }
    [[nodiscard]] std::vector<int> world_ranks() const override { return comm_.world_ranks(); }
    [[nodiscard]] std::shared_ptr<Activity> activity() const override { return activity_of(comm_); }
    void barrier(Call const& call) const override { comm_.barrier(call); }
    [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine,
                                                                 Call const& call) const override {
      return comm_.all_gather(mine, call);
    }
    [[nodiscard]] AnyRanks split(int color, int key, Call const& call) const override {
      return AnyRanks(comm_.split(color, key, call));
    }
    void exchange(std::span<Message const> sends,
                  std::span<Message> receives,
                  Call const& call) const override {
      if constexpr (ExchangesHostMemory<Comm>) {
        comm_.template exchange<HostMemory>(sends, receives, HostStream{}, call);
      } else {
        throw UnsupportedError(
            "shardmesh: this communicator cannot exchange host memory, which loading from files "
            "needs; give it an exchange<HostMemory>");
      }
    }
    [[nodiscard]] std::unique_ptr<CopyPhase> copy_phase() const override {
      if constexpr (Comm::shared_address_space && requires { comm_.copy_phase(HostStream{}); }) {
        auto const begin = [this] { return comm_.copy_phase(HostStream{}); };
        return std::make_unique<CopyPhaseOf<decltype(begin())>>(begin);
      } else {
        return nullptr;
      }
    }

   private:
    Comm comm_;
  };

  std::shared_ptr<Group const> group_;
};

/// The ranks of a load.
template <Communicator Comm>
[[nodiscard]] AnyRanks ranks_of_load(Comm const& comm) {
  static_assert(
      ExchangesHostMemory<Comm>,
      "shardmesh::load: the ranks of a load pass on what they read; give the communicator "
      "an exchange<HostMemory>(sends, receives, stream, call)");
  return AnyRanks(comm);
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
