// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/fsdp/collect.hpp>
#include <shardmesh/fsdp/unit.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A parameter that lies in a flat one, from element `offset`.
template <class T, class Space>
struct FlatMember {
  FoundParameter<T, Space> parameter;
  Shape shape;
  index_t offset = 0;
};

/// Parameters that are concatenated into one flat parameter, padded with zeros to a multiple of the
/// shard group's size, of which every rank of the group keeps an equal part (FSDP1).
template <class Sharding, class T, class Space, class P>
class FlatUnit {
 public:
  using Base = ShardUnit<Sharding, T, Space, P>;
  using Parameter = typename Base::Parameter;
  using Master = typename Base::Master;
  using Whole = Tensor<T, Space>;
  using Stream = typename Space::Stream;

  /// @throws InvalidArgument if some of the parameters are frozen and others are not.
  FlatUnit(std::string name,
           std::vector<FoundParameter<T, Space>> const& parameters,
           Sharding const& sharding,
           ReduceOp op,
           Stream stream)
      : sharding_(&sharding) {
    std::string const flat_name = (name.empty() ? "" : name + ".") + "_flat_param";
    index_t size = 0;
    for (auto const& one : parameters) {
      if (one.role != parameters.front().role) {
        throw InvalidArgument("shardmesh::flat_shard: unit \"" + name + "\" has \"" +
                              one.names.front() + "\", frozen or not unlike \"" +
                              parameters.front().names.front() +
                              "\"; name units of their own for frozen parameters");
      }
      members_.push_back({one, one.leaves.front()->shape(), size});
      size += one.leaves.front()->size();
    }
    auto const& group = sharding.shard_group();
    index_t const part = ceil_div(size, index_t{group.size()});
    Shape const padded{part * group.size()};
    Whole const flat = Whole::zeros(padded, stream);
    for (auto const& member : members_) {
      copy_bytes<Space, Space>(flat.data() + member.offset, member.parameter.leaves.front()->data(),
                               member.parameter.leaves.front()->bytes(), stream);
    }
    Layout const layout(padded, Shape{group.size()}, PlacementList{Shard{0}});
    auto local = convert<Master>(cut_local(flat, layout, {group.rank()}, stream), stream);
    slot_ = std::unique_ptr<typename Base::Slot>(
        new typename Base::Slot{{flat_name},
                                {&whole_},
                                parameters.front().role,
                                padded,
                                sharding.make(flat_name, padded, std::move(local))});
    unit_ = std::make_unique<Base>(std::move(name), std::vector{slot_.get()}, sharding, op);
    make_exchanges(layout);
    release();
  }
  FlatUnit(FlatUnit const&) = delete;
  FlatUnit& operator=(FlatUnit const&) = delete;
  ~FlatUnit() = default;

  [[nodiscard]] std::string const& name() const noexcept { return unit_->name(); }
  [[nodiscard]] std::string const& flat_name() const noexcept { return slot_->names.front(); }
  [[nodiscard]] bool is_trained() const noexcept { return slot_->role == Role::parameter; }
  [[nodiscard]] bool is_unsharded() const noexcept { return unit_->is_unsharded(); }
  [[nodiscard]] Parameter const& flat() const noexcept { return slot_->sharded; }
  [[nodiscard]] std::vector<FlatMember<T, Space>> const& members() const noexcept {
    return members_;
  }

  /// @collective over the shard group.
  void unshard(Stream stream) {
    unit_->unshard(stream);
    show();
  }
  /// @collective over the shard group.
  void prefetch(Stream stream, Stream on) {
    unit_->prefetch(stream, on);
    show();
  }
  void reshard(Stream stream) {
    unit_->reshard(stream);
    release();
  }

  /// The flat gradient's shard, of one whole gradient for each member, in order.
  /// @collective over the shard group, then over the replicate group.
  [[nodiscard]] Parameter reduce(std::vector<Whole> const& gradients, Stream stream) {
    Whole const flat = Whole::zeros(slot_->shape, stream);
    for (std::size_t i = 0; i < members_.size(); ++i) {
      copy_bytes<Space, Space>(flat.data() + members_[i].offset, gradients[i].data(),
                               gradients[i].bytes(), stream);
    }
    return unit_->reduce({flat}, stream).front();
  }

  /// A tensor that is sharded as the flat parameter (it, or optimizer state of it) as one tensor for
  /// each member, sharded along dimension 0. Copies.
  /// @collective over the shard group.
  [[nodiscard]] std::vector<Parameter> unflatten(Parameter const& flat, Stream stream = {}) const {
    Tensor<Master, Space> const whole(slot_->shape, stream);
    gather_.run(sharding_->shard_group(), std::vector{local_part(flat)}, {whole}, stream);
    std::vector<Parameter> parts;
    for (auto const& member : members_) {
      auto const full = part_of(whole, member);
      parts.push_back(sharding_->make(
          member.parameter.names.front(), member.shape,
          cut_local(full, row_layout(member.shape), {sharding_->shard_group().rank()}, stream)));
    }
    return parts;
  }

  /// The reverse: writes one tensor for each member into a tensor that is sharded as the flat one.
  /// @collective over the shard group.
  void flatten(std::vector<Parameter> const& parts,
               Parameter const& flat,
               Stream stream = {}) const {
    auto const whole = Tensor<Master, Space>::zeros(slot_->shape, stream);
    std::vector<Tensor<Master, Space>> locals;
    std::vector<Tensor<Master, Space>> targets;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      locals.push_back(local_part(parts[i]));
      targets.push_back(part_of(whole, members_[i]));
    }
    gather_members_.run(sharding_->shard_group(), locals, targets, stream);
    auto const& local = local_part(flat);
    index_t const first = local.size() * sharding_->shard_group().rank();
    copy_bytes<Space, Space>(local.data(), whole.data() + first, local.bytes(), stream);
  }

 private:
  [[nodiscard]] Layout row_layout(Shape const& shape) const {
    return {shape, Shape{sharding_->shard_group().size()}, PlacementList{Shard{0}}};
  }

  template <class U>
  [[nodiscard]] static Tensor<U, Space> part_of(Tensor<U, Space> const& whole,
                                                FlatMember<T, Space> const& member) {
    return Tensor<U, Space>::view(member.shape, {whole.storage(), whole.data() + member.offset});
  }

  void make_exchanges(Layout const& flat) {
    auto const& group = sharding_->shard_group();
    auto const replicated = [&group](Shape const& shape) {
      return Layout(shape, Shape{group.size()}, PlacementList{Replicate{}});
    };
    gather_ = FusedExchange("unflatten", name(), {make_plan(flat, replicated(flat.shape()))},
                            group.rank());
    std::vector<Plan> plans;
    for (auto const& member : members_) {
      plans.push_back(make_plan(row_layout(member.shape), replicated(member.shape)));
    }
    gather_members_ = FusedExchange("flatten", name(), plans, group.rank());
  }

  void show() {
    for (auto const& member : members_) {
      for (Whole* leaf : member.parameter.leaves) {
        *leaf = part_of(whole_, member);
      }
    }
  }
  void release() {
    unit_->release();
    for (auto const& member : members_) {
      for (Whole* leaf : member.parameter.leaves) {
        *leaf = Whole::sharded_away();
      }
    }
  }

  Sharding const* sharding_;
  std::vector<FlatMember<T, Space>> members_;
  Whole whole_;
  std::unique_ptr<typename Base::Slot> slot_;
  std::unique_ptr<Base> unit_;
  FusedExchange gather_;
  FusedExchange gather_members_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
