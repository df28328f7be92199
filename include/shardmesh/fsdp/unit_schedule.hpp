// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/memory/space.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Keeps a unit's whole parameters in the model's tensors while it lives.
template <class Unit>
class UnitPass {
 public:
  using Stream = typename Unit::Stream;

  UnitPass(Unit& unit, Stream stream, bool reshard)
      : unit_(&unit), stream_(stream), reshard_(reshard) {}
  UnitPass(UnitPass const&) = delete;
  UnitPass& operator=(UnitPass const&) = delete;
  /// @throws DeviceError, unless another exception is on its way, which tells more.
  ~UnitPass() noexcept(false) {
    if (!reshard_) {
      return;
    }
    try {
      unit_->reshard(stream_);
    } catch (Error const&) {
      if (std::uncaught_exceptions() == exceptions_) {
        throw;
      }
    }
  }

 private:
  Unit* unit_;
  Stream stream_;
  bool reshard_;
  int exceptions_ = std::uncaught_exceptions();
};

/// The units of a sharded model, in its order, and when they are gathered and freed.
template <class Unit, MemorySpace Space>
class UnitSchedule {
 public:
  using Stream = typename Space::Stream;
  using Pass = UnitPass<Unit>;

  /// @param reshard_after_forward see `FullyShardOptions`.
  explicit UnitSchedule(bool reshard_after_forward)
      : reshard_after_forward_(reshard_after_forward) {}

  void add(std::unique_ptr<Unit> unit) { units_.push_back(std::move(unit)); }

  /// The units by name, in the order of the model.
  [[nodiscard]] std::vector<std::string> units() const {
    std::vector<std::string> names;
    for (auto const& unit : units_) {
      names.push_back(unit->name());
    }
    return names;
  }

  [[nodiscard]] bool is_unsharded(std::size_t unit) const { return at(unit).is_unsharded(); }

  /// Fills the model's tensors of one unit with the whole parameters. They are there for work on
  /// `stream`.
  /// @collective over the shard group.
  void unshard(std::size_t unit, Stream stream = {}) { at(unit).unshard(stream); }
  /// All units.
  void unshard(Stream stream = {}) {
    for (auto& unit : units_) {
      unit->unshard(stream);
    }
  }

  /// Starts to gather a unit on a stream of its own, so that it overlaps with work on `stream`;
  /// a later `unshard` waits for it on the device.
  /// @collective over the shard group.
  void prefetch(std::size_t unit, Stream stream = {}) { at(unit).prefetch(stream, side_.get()); }

  /// Frees the whole parameters of one unit. Call it on the stream that used them.
  void reshard(std::size_t unit, Stream stream = {}) { at(unit).reshard(stream); }
  /// All units.
  void reshard(Stream stream = {}) {
    for (auto& unit : units_) {
      unit->reshard(stream);
    }
  }

  /// A unit's part of the forward pass: gathers it, and on devices the next one meanwhile; frees it
  /// at the end of the scope, if `reshard_after_forward`.
  /// @code { auto pass = net.forward(0); y = apply(model.net1, x); } @endcode
  /// @collective over the shard group.
  [[nodiscard]] Pass forward(std::size_t unit, Stream stream = {}) {
    return pass(unit, unit + 1, reshard_after_forward_, stream);
  }
  /// A unit's part of the backward pass: the same, the other way round.
  [[nodiscard]] Pass backward(std::size_t unit, Stream stream = {}) {
    return pass(unit, unit - 1, true, stream);
  }

 protected:
  [[nodiscard]] Unit& at(std::size_t unit) const {
    if (unit >= units_.size()) {
      throw InvalidArgument("shardmesh::fully_shard: there is no unit " + std::to_string(unit) +
                            "; the model has " + std::to_string(units_.size()));
    }
    return *units_[unit];
  }
  [[nodiscard]] std::size_t unit_count() const noexcept { return units_.size(); }
  [[nodiscard]] std::vector<std::unique_ptr<Unit>> const& all() const noexcept { return units_; }

 private:
  [[nodiscard]] Pass pass(std::size_t unit, std::size_t next, bool reshard, Stream stream) {
    Unit& one = at(unit);
    one.unshard(stream);
    if (!Space::host_accessible && next < units_.size()) {
      prefetch(next, stream);
    }
    return Pass(one, stream, reshard);
  }

  bool reshard_after_forward_;
  typename Space::OwnedStream side_ = Space::make_stream();
  std::vector<std::unique_ptr<Unit>> units_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
