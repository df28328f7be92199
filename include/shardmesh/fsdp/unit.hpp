// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/fsdp/collect.hpp>
#include <shardmesh/fsdp/detail/parameter_slot.hpp>
#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/tensor/convert.hpp>
#include <shardmesh/tensor/fused_exchange.hpp>
#include <shardmesh/tensor/local_part.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The parameters that are gathered and freed together: one exchange gathers all of them into one
/// allocation, one reduces all their gradients.
///
/// @tparam Sharding see fsdp/sharding.hpp.
/// @tparam T        element type in which the model computes.
/// @tparam P        a `Precision`.
template <class Sharding, class T, class Space, class P>
class ShardUnit {
 public:
  using Stream = typename Space::Stream;
  using Master = typename P::master_type;
  using Reduce = typename P::reduce_type;
  using Parameter = typename Sharding::template Parameter<Master, Space>;
  using Slot = ParameterSlot<T, Space, Parameter>;
  using Whole = Tensor<T, Space>;

  /// @param slots the parameters of this unit, which must stay where they are.
  ShardUnit(std::string name, std::vector<Slot*> slots, Sharding const& sharding, ReduceOp op);

  ShardUnit(ShardUnit const&) = delete;
  ShardUnit& operator=(ShardUnit const&) = delete;
  ~ShardUnit() { await_prefetch(); }

  [[nodiscard]] std::string const& name() const noexcept { return name_; }
  [[nodiscard]] bool is_unsharded() const noexcept { return unsharded_; }
  [[nodiscard]] std::vector<Slot*> const& slots() const noexcept { return slots_; }

  /// Gathers the parameters into the model's members, if they are not there; work of `stream` from
  /// here on finds them.
  /// @collective over the shard group.
  void unshard(Stream stream);

  /// Starts to gather on stream `on`, after what `stream` has been given so far.
  /// @collective over the shard group.
  void prefetch(Stream stream, Stream on);

  /// Empties the model's members. Their memory is free again once `stream` has done what it has
  /// been given so far.
  void reshard(Stream stream);

  /// Empties the model's members, which hold whole parameters or nothing.
  void release();

  /// Reduces the gradients of the ranks, one whole gradient for each trained parameter, in order.
  /// @returns what each parameter's shard gets.
  /// @collective over the shard group, then over the replicate group.
  [[nodiscard]] std::vector<Parameter> reduce(std::vector<Whole> const& gradients, Stream stream);

 private:
  /// The memory is of `home`, the user's stream, which gives it back; the side stream `on` may be
  /// gone by then.
  void gather(Stream home, Stream on);

  /// What was prefetched and not used is still being gathered: it must not be freed before.
  void await_prefetch() noexcept {
    if (!std::exchange(prefetched_, false)) {
      return;
    }
    try {
      Space::wait(home_, ready_);
    } catch (Error const&) {
      return;  // the device has failed, and the next call says so
    }
  }

  std::string name_;
  std::vector<Slot*> slots_;
  Sharding const* sharding_;
  FusedExchange gather_;
  FusedExchange scatter_;
  FusedExchange average_;
  typename Space::Event ready_ = Space::make_event();
  typename Space::Event used_ = Space::make_event();
  Stream home_{};
  bool unsharded_ = false;
  bool prefetched_ = false;  ///< and `home_` has not waited for it
};

template <class Sharding, class T, class Space, class P>
ShardUnit<Sharding, T, Space, P>::ShardUnit(std::string name,
                                            std::vector<Slot*> slots,
                                            Sharding const& sharding,
                                            ReduceOp op)
    : name_(std::move(name)), slots_(std::move(slots)), sharding_(&sharding) {
  auto const& shard = sharding.shard_group();
  auto const& replicate = sharding.replicate_group();
  PlacementList const cut{Shard{0}};
  PlacementList const whole{Replicate{}};
  PlacementList const terms{Placement::partial(op)};
  Shape const shards{shard.size()};
  Shape const replicas{replicate.size()};
  std::vector<Plan> gather;
  std::vector<Plan> scatter;
  std::vector<Plan> average;
  for (Slot const* slot : slots_) {
    Layout const sharded(slot->shape, shards, cut);
    Shape const local = sharded.local_shape(Coordinate{shard.rank()});
    gather.push_back(make_plan(sharded, Layout(slot->shape, shards, whole)));
    if (slot->role == Role::parameter) {
      scatter.push_back(make_plan(Layout(slot->shape, shards, terms), sharded));
      average.push_back(make_plan(Layout(local, replicas, terms), Layout(local, replicas, whole)));
    }
  }
  gather_ = FusedExchange("unshard", name_, gather, shard.rank());
  scatter_ = FusedExchange("reduce_gradients over shards", name_, scatter, shard.rank());
  average_ = FusedExchange("reduce_gradients over replicas", name_, average, replicate.rank());
}

template <class Sharding, class T, class Space, class P>
void ShardUnit<Sharding, T, Space, P>::unshard(Stream stream) {
  if (!unsharded_) {
    gather(stream, stream);
  }
  Space::wait(stream, ready_);
}

template <class Sharding, class T, class Space, class P>
void ShardUnit<Sharding, T, Space, P>::prefetch(Stream stream, Stream on) {
  if (!unsharded_) {
    gather(stream, on);
    prefetched_ = true;
  }
}

template <class Sharding, class T, class Space, class P>
void ShardUnit<Sharding, T, Space, P>::reshard(Stream stream) {
  if (unsharded_) {
    await_prefetch();
    Space::record(used_, stream);
    Space::wait(home_, used_);
    release();
  }
}

template <class Sharding, class T, class Space, class P>
void ShardUnit<Sharding, T, Space, P>::release() {
  for (Slot* slot : slots_) {
    for (Whole* leaf : slot->leaves) {
      *leaf = Whole::sharded_away();
    }
  }
  unsharded_ = false;
}

template <class Sharding, class T, class Space, class P>
auto ShardUnit<Sharding, T, Space, P>::reduce(std::vector<Whole> const& gradients, Stream stream)
    -> std::vector<Parameter> {
  std::vector<Tensor<Reduce, Space>> terms;
  std::vector<Tensor<Reduce, Space>> shards;
  auto gradient = gradients.begin();
  for (Slot const* slot : slots_) {
    if (slot->role == Role::parameter) {
      terms.push_back(convert<Reduce>(*gradient++, stream));
      shards.emplace_back(local_part(slot->sharded).shape(), stream);
    }
  }
  scatter_.run(sharding_->shard_group(), terms, shards, stream);
  if (sharding_->replicate_group().size() > 1) {
    std::vector<Tensor<Reduce, Space>> averages;
    for (auto const& shard : shards) {
      averages.emplace_back(shard.shape(), stream);
    }
    average_.run(sharding_->replicate_group(), shards, averages, stream);
    shards = std::move(averages);
  }
  std::vector<Parameter> reduced;
  auto shard = shards.begin();
  for (Slot const* slot : slots_) {
    if (slot->role == Role::parameter) {
      reduced.push_back(with_local_part(slot->sharded, convert<Master>(*shard++, stream)));
    }
  }
  return reduced;
}

template <class Sharding, class T, class Space, class P>
void ShardUnit<Sharding, T, Space, P>::gather(Stream home, Stream on) {
  constexpr std::size_t alignment = 256;  // as an allocation of each would have
  std::vector<std::size_t> offsets;
  std::size_t bytes = 0;
  for (Slot const* slot : slots_) {
    offsets.push_back(bytes);
    std::size_t const size = static_cast<std::size_t>(volume(slot->shape)) * sizeof(T);
    bytes += (size + alignment - 1) / alignment * alignment;
  }
  auto const buffer = std::make_shared<Buffer<Space>>(bytes, home);
  Space::record(used_, home);
  Space::wait(on, used_);
  std::vector<Whole> parts;
  std::vector<Whole> wholes;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    parts.push_back(convert<T>(local_part(slots_[i]->sharded), on));
    auto* const first = static_cast<std::byte*>(buffer->data()) + offsets[i];
    wholes.push_back(Whole::view(slots_[i]->shape, {buffer, reinterpret_cast<T*>(first)}));
  }
  gather_.run(sharding_->shard_group(), parts, wholes, on);
  Space::record(ready_, on);
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    for (Whole* leaf : slots_[i]->leaves) {
      *leaf = wholes[i];
    }
  }
  home_ = home;
  unsharded_ = true;
}

/// Reduces the gradients of all units.
/// @param trained    the trained parameters of the units.
/// @param gradients  one for each, in the order of the model, as the result.
/// @throws ShapeError if one is missing or has another shape than its parameter.
/// @collective over the shard group, then over the replicate group.
template <class Unit>
[[nodiscard]] std::vector<typename Unit::Parameter> reduce_units(
    std::vector<std::unique_ptr<Unit>> const& units,
    std::vector<TrainedParameter> const& trained,
    std::vector<typename Unit::Whole> const& gradients,
    typename Unit::Stream stream) {
  auto const by_unit = gradients_by_unit(trained, gradients, units.size());
  std::vector<std::vector<typename Unit::Parameter>> reduced;
  for (std::size_t unit = 0; unit < by_unit.size(); ++unit) {
    reduced.push_back(units[unit]->reduce(by_unit[unit], stream));
  }
  std::vector<std::size_t> next(by_unit.size(), 0);
  std::vector<typename Unit::Parameter> all;
  for (TrainedParameter const& one : trained) {
    all.push_back(reduced[one.unit][next[one.unit]++]);
  }
  return all;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
