// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/fsdp/collect.hpp>
#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/fsdp/sharding.hpp>
#include <shardmesh/fsdp/unit.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/visit.hpp>

namespace shardmesh::inline v0 {

/// A model whose parameters are sharded, each along dimension 0 (FSDP2); made by `fully_shard`.
///
/// The sharded parameters lie here. The model's own tensors are empty, but between `unshard` and
/// `reshard` of their unit, when they hold the whole parameters: all parameters of a unit travel as
/// one exchange into one allocation. To visitors this is the model with sharded parameters:
/// `state_dict(net)`, `Adam(net)`, `load` see `DistTensor`s (`ShardedTensor`s over groups).
///
/// Refers to the model, which must outlive it and stay where it is; moving this is fine.
///
/// @tparam Sharding see fsdp/sharding.hpp.
/// @tparam T, Space element type and memory space of the model's parameters.
/// @tparam P        a `Precision`.
template <class Model, class Sharding, Element T, MemorySpace Space, class P>
class FullyShard {
  using Unit = detail::ShardUnit<Sharding, T, Space, P>;
  using Slot = typename Unit::Slot;

 public:
  using Whole = Tensor<T, Space>;
  using Parameter = typename Unit::Parameter;
  using Stream = typename Space::Stream;

  /// Users call `fully_shard`.
  FullyShard(Model& model, Sharding sharding, FullyShardOptions options, Stream stream)
      : state_(std::make_unique<State>(State{&model, std::move(sharding), std::move(options)})) {
    auto found = detail::collect_parameters<T, Space>(model);
    detail::agree_on_parameters(state_->sharding, found);
    if (state_->options.from == DataSource::first_rank) {
      detail::take_from_first(state_->sharding, found, stream);
    }
    auto const& shard = state_->sharding.shard_group();
    for (auto& one : found) {
      Shape const whole = one.leaves.front()->shape();
      Whole const business = state_->sharding.cut(one.names.front(), *one.leaves.front(), stream);
      Layout const layout(business.shape(), Shape{shard.size()}, PlacementList{Shard{0}});
      auto part = convert<typename P::master_type>(
          detail::cut_local(business, layout, {shard.rank()}, stream), stream);
      state_->slots.push_back(std::unique_ptr<Slot>(
          new Slot{one.names, one.leaves, one.role, business.shape(),
                   state_->sharding.make(one.names.front(), whole, std::move(part))}));
    }
    make_units();
  }

  /// The units by name, in the order of the model.
  [[nodiscard]] std::vector<std::string> units() const {
    std::vector<std::string> names;
    for (auto const& unit : state_->units) {
      names.push_back(unit->name());
    }
    return names;
  }

  [[nodiscard]] Model& model() const noexcept { return *state_->model; }
  [[nodiscard]] FullyShardOptions const& options() const noexcept { return state_->options; }
  [[nodiscard]] bool is_unsharded(std::size_t unit) const {
    return state_->units.at(unit)->is_unsharded();
  }

  /// Fills the model's tensors of one unit with the whole parameters. They are there for work on
  /// `stream`.
  /// @collective over the shard group.
  void unshard(std::size_t unit, Stream stream = {}) { unit_at(unit).unshard(stream, stream); }
  /// All units.
  void unshard(Stream stream = {}) {
    for (auto& unit : state_->units) {
      unit->unshard(stream, stream);
    }
  }

  /// Starts to gather a unit on a stream of its own, so that it overlaps with work on `stream`;
  /// a later `unshard` waits for it on the device.
  /// @collective over the shard group.
  void prefetch(std::size_t unit, Stream stream = {}) {
    unit_at(unit).prefetch(stream, state_->side.get());
  }

  /// Frees the whole parameters of one unit. Call it on the stream that used them.
  void reshard(std::size_t unit, Stream stream = {}) { unit_at(unit).reshard(stream); }
  /// All units.
  void reshard(Stream stream = {}) {
    for (auto& unit : state_->units) {
      unit->reshard(stream);
    }
  }

  /// Keeps a unit's whole parameters in the model's tensors while it lives.
  class Pass {
   public:
    Pass(Unit& unit, Stream stream, bool reshard)
        : unit_(&unit), stream_(stream), reshard_(reshard) {}
    Pass(Pass const&) = delete;
    Pass& operator=(Pass const&) = delete;
    ~Pass() noexcept(false) {
      if (reshard_) {
        unit_->reshard(stream_);
      }
    }

   private:
    Unit* unit_;
    Stream stream_;
    bool reshard_;
  };

  /// A unit's part of the forward pass: gathers it, and on devices the next one meanwhile; frees it
  /// at the end of the scope, if `reshard_after_forward`.
  /// @code { auto pass = net.forward(0); y = apply(model.net1, x); } @endcode
  /// @collective over the shard group.
  [[nodiscard]] Pass forward(std::size_t unit, Stream stream = {}) {
    return pass(unit, unit + 1, options().reshard_after_forward, stream);
  }
  /// A unit's part of the backward pass: the same, the other way round.
  [[nodiscard]] Pass backward(std::size_t unit, Stream stream = {}) {
    return pass(unit, unit - 1, true, stream);
  }

  /// Reduces one unit's gradients: this rank's whole gradients of the unit's trained parameters, in
  /// the order of the model, become the shards of their average (or sum) over all ranks.
  /// @throws ShapeError if a gradient is missing or has another shape than its parameter.
  /// @collective over the shard and the replicate group.
  [[nodiscard]] std::vector<Parameter> reduce_gradients(std::size_t unit,
                                                        std::vector<Whole> const& gradients,
                                                        Stream stream = {}) {
    Unit& one = unit_at(unit);
    check_gradients(one, gradients);
    return one.reduce(gradients, stream);
  }

  /// All units: `gradients` in the order of the model, as the result.
  [[nodiscard]] std::vector<Parameter> reduce_gradients(std::vector<Whole> const& gradients,
                                                        Stream stream = {}) {
    std::vector<std::vector<Whole>> by_unit(state_->units.size());
    std::vector<std::size_t> units;
    for (std::size_t i = 0; i < state_->slots.size(); ++i) {
      if (state_->slots[i]->role == Role::parameter) {
        units.push_back(state_->unit_of[i]);
      }
    }
    if (gradients.size() != units.size()) {
      throw ShapeError("shardmesh::reduce_gradients: " + std::to_string(gradients.size()) +
                       " gradients for " + std::to_string(units.size()) +
                       " trained parameters; give one for each, in the order of the model");
    }
    for (std::size_t i = 0; i < units.size(); ++i) {
      by_unit[units[i]].push_back(gradients[i]);
    }
    std::vector<std::vector<Parameter>> reduced;
    for (std::size_t unit = 0; unit < by_unit.size(); ++unit) {
      reduced.push_back(reduce_gradients(unit, by_unit[unit], stream));
    }
    std::vector<std::size_t> next(by_unit.size(), 0);
    std::vector<Parameter> all;
    for (std::size_t unit : units) {
      all.push_back(reduced[unit][next[unit]++]);
    }
    return all;
  }

  /// All units: gradients in the tensors of a model of the same type.
  [[nodiscard]] std::vector<Parameter> reduce_gradients(Model& gradients, Stream stream = {}) {
    std::vector<Whole> list;
    std::size_t next = 0;
    for_each_leaf(gradients, [&]<class Leaf>(std::string const& name, Leaf& leaf, Role) {
      if constexpr (std::is_same_v<Leaf, Whole>) {
        if (next < state_->slots.size() && state_->slots[next]->names.front() == name) {
          if (state_->slots[next]->role == Role::parameter) {
            list.push_back(leaf);
          }
          ++next;
        }
      }
    });
    return reduce_gradients(list, stream);
  }

  /// The sharded state of the model: parameters as they are sharded, all else as the model has it.
  /// Frees whole parameters first. No communication.
  [[nodiscard]] StateDict state_dict() {
    reshard();
    StateDict dict;
    detail::for_each_slot(model(), state_->slots,
                          [&](std::string const& name, auto& leaf, Role role) {
                            if (role != Role::transient) {
                              dict.insert(name, detail::state_value(leaf));
                            }
                          });
    return dict;
  }

  /// Shows the model with sharded parameters to a visitor. Frees whole parameters first.
  template <class Visitor>
  void visit(Visitor&& v) {
    reshard();
    detail::for_each_slot(model(), state_->slots,
                          [&](std::string const& name, auto& leaf, Role role) {
                            if (role == Role::parameter) {
                              v(name, leaf);
                            } else {
                              v(name, Tagged<std::remove_reference_t<decltype(leaf)>>{&leaf, role});
                            }
                          });
  }

 private:
  struct State {
    Model* model;
    Sharding sharding;
    FullyShardOptions options;
    std::vector<std::unique_ptr<Slot>> slots = {};  // in the order of the model
    std::vector<std::size_t> unit_of = {};          // by slot
    std::vector<std::unique_ptr<Unit>> units = {};
    typename Space::OwnedStream side = Space::make_stream();
  };

  void make_units() {
    auto const prefixes =
        state_->options.units.empty() ? detail::member_names(model()) : state_->options.units;
    std::vector<std::string> names;
    std::vector<std::vector<Slot*>> members;
    for (auto const& slot : state_->slots) {
      std::string const name = detail::unit_of(slot->names.front(), prefixes);
      std::size_t at = 0;
      while (at < names.size() && names[at] != name) {
        ++at;
      }
      if (at == names.size()) {
        names.push_back(name);
        members.emplace_back();
      }
      members[at].push_back(slot.get());
      state_->unit_of.push_back(at);
    }
    for (std::size_t i = 0; i < names.size(); ++i) {
      state_->units.push_back(std::make_unique<Unit>(names[i], members[i], state_->sharding,
                                                     state_->options.gradients));
      state_->units.back()->release();
    }
  }

  [[nodiscard]] Unit& unit_at(std::size_t unit) const {
    if (unit >= state_->units.size()) {
      throw InvalidArgument("shardmesh::FullyShard: there is no unit " + std::to_string(unit) +
                            "; the model has " + std::to_string(state_->units.size()));
    }
    return *state_->units[unit];
  }

  [[nodiscard]] Pass pass(std::size_t unit, std::size_t next, bool reshard, Stream stream) {
    Unit& one = unit_at(unit);
    one.unshard(stream, stream);
    if (!Space::host_accessible && next < state_->units.size()) {
      prefetch(next, stream);
    }
    return Pass(one, stream, reshard);
  }

  static void check_gradients(Unit const& unit, std::vector<Whole> const& gradients) {
    auto gradient = gradients.begin();
    for (Slot const* slot : unit.slots()) {
      if (slot->role != Role::parameter) {
        continue;
      }
      if (gradient == gradients.end() || !(gradient->shape() == slot->shape)) {
        throw ShapeError(
            "shardmesh::reduce_gradients: the gradient of \"" + slot->names.front() + "\" " +
            (gradient == gradients.end() ? std::string("is missing")
                                         : "has shape " + to_string(gradient->shape()) +
                                               ", the parameter " + to_string(slot->shape)) +
            "; give one for each trained parameter of unit \"" + unit.name() + "\", in order");
      }
      ++gradient;
    }
    if (gradient != gradients.end()) {
      throw ShapeError("shardmesh::reduce_gradients: " + std::to_string(gradients.size()) +
                       " gradients are more than unit \"" + unit.name() +
                       "\" has trained parameters");
    }
  }

  std::unique_ptr<State> state_;
};

/// Shards every parameter of a model along dimension 0.
///
/// @code
///   auto net = sm::fully_shard(model, mesh);     // 1-D mesh: FSDP; 2-D: hybrid (replicate, shard)
///   { auto pass = net.forward(0); ... }          // model.net1 is whole in this scope
///   adam.step(net.reduce_gradients(gradients));  // reduce-scatter, then all-reduce over replicas
///   sm::save(world, "checkpoint", sm::state_dict(net));
/// @endcode
///
/// @param model any visitable struct; its parameters (see `Role`) are `Tensor<T, Space>`s of at least
///              one dimension that hold the same values on every rank. They are empty afterwards.
/// @throws InvalidArgument for a parameter that cannot be sharded, MismatchError if ranks have
///         different parameters.
/// @collective over the mesh.
template <class P = void, class Model, std::size_t N, Communicator Comm>
[[nodiscard]] auto fully_shard(Model& model,
                               DeviceMesh<N, Comm> const& mesh,
                               FullyShardOptions options = {}) {
  return detail::make_fully_shard<FullyShard, P>(model, MeshSharding(mesh), std::move(options));
}

/// The same over a pair of communicators: parameters are cut over the first and replicated over the
/// second. They become `ShardedTensor`s, which know no mesh.
template <class P = void, class Model, Communicator Comm>
[[nodiscard]] auto fully_shard(Model& model,
                               Comm const& shard_group,
                               Comm const& replicate_group,
                               FullyShardOptions options = {}) {
  return detail::make_fully_shard<FullyShard, P>(model, GroupSharding(shard_group, replicate_group),
                                                 std::move(options));
}

/// The same on top of tensor parallelism over the last dimension of the mesh; the model's whole
/// tensors in a pass are this rank's tensor-parallel parts.
template <class P = void, class Model, std::size_t N, Communicator Comm>
[[nodiscard]] auto fully_shard(Model& model,
                               DeviceMesh<N, Comm> const& mesh,
                               TensorParallel parallel,
                               FullyShardOptions options = {}) {
  return detail::make_fully_shard<FullyShard, P>(
      model, TensorParallelSharding(mesh, std::move(parallel)), std::move(options));
}

}  // namespace shardmesh::inline v0
