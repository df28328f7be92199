// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/core/address_map.hpp>
#include <shardmesh/fsdp/collect.hpp>
#include <shardmesh/fsdp/detail/parameter_slot.hpp>
#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/fsdp/sharding.hpp>
#include <shardmesh/fsdp/unit.hpp>
#include <shardmesh/fsdp/unit_schedule.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/visit.hpp>

namespace shardmesh {
inline namespace v0 {

/// A model whose parameters are sharded, each along dimension 0 (FSDP2); made by `fully_shard`.
///
/// The sharded parameters lie here. The model's own tensors are empty, but between `unshard` and
/// `reshard` of their unit, when they hold the whole parameters: all parameters of a unit travel as
/// one exchange into one allocation. To visitors this is the model with sharded parameters:
/// `state_dict(net)`, `Adam(net)`, `load` see `DistTensor`s (`ShardedTensor`s over groups).
///
/// Refers to the model, which must outlive it and stay where it is; moving this is fine. On a rank
/// outside the mesh there are no units; its part of the state has no elements.
///
/// @tparam Sharding see fsdp/sharding.hpp.
/// @tparam T, Space element type and memory space of the model's parameters.
/// @tparam P        a `Precision`.
template <class Model, class Sharding, Element T, MemorySpace Space, class P>
class FullyShard : public detail::UnitSchedule<detail::ShardUnit<Sharding, T, Space, P>, Space> {
  using Unit = detail::ShardUnit<Sharding, T, Space, P>;
  using Schedule = detail::UnitSchedule<Unit, Space>;
  using Slot = typename Unit::Slot;

 public:
  using Whole = Tensor<T, Space>;
  using Parameter = typename Unit::Parameter;
  using Stream = typename Space::Stream;

  /// Users call `fully_shard`.
  FullyShard(Model& model, Sharding sharding, FullyShardOptions options, Stream stream)
      : Schedule(options.reshard_after_forward),
        state_(std::make_unique<State>(State{&model, std::move(sharding), std::move(options)})) {
    auto found = detail::collect_parameters<T, Space>(model);
    if (!state_->sharding.is_member()) {
      for (auto const& one : found) {
        state_->slots.push_back(
            detail::parameter_outside<typename P::master_type>(state_->sharding, one));
      }
      return;
    }
    detail::agree_on_parameters(state_->sharding, found);
    if (state_->options.from == DataSource::first_rank) {
      detail::take_from_first(state_->sharding, found, stream);
    }
    auto const grouping = detail::group_parameters(model, found, state_->options.units);
    std::vector<std::vector<Slot*>> members(grouping.names.size());
    for (auto& one : found) {
      std::size_t const unit = grouping.unit_of[state_->slots.size()];
      state_->slots.push_back(
          detail::cut_parameter<typename P::master_type>(state_->sharding, one, stream));
      Slot& slot = *state_->slots.back();
      members[unit].push_back(&slot);
      if (slot.role == Role::parameter) {
        state_->trained.push_back({slot.names.front(), slot.shape, unit, one.tied()});
      }
    }
    for (std::size_t i = 0; i < members.size(); ++i) {
      auto unit = std::make_unique<Unit>(grouping.names[i], members[i], state_->sharding,
                                         state_->options.gradients);
      unit->release();
      this->add(std::move(unit));
    }
  }

  [[nodiscard]] Model& model() const noexcept { return *state_->model; }
  [[nodiscard]] FullyShardOptions const& options() const noexcept { return state_->options; }

  /// Reduces one unit's gradients: this rank's whole gradients of the unit's trained parameters, in
  /// the order of the model, become the shards of their average (or sum) over all ranks.
  /// @throws ShapeError if a gradient is missing or has another shape than its parameter.
  /// @collective over the shard and the replicate group.
  [[nodiscard]] std::vector<Parameter> reduce_gradients(std::size_t unit,
                                                        std::vector<Whole> const& gradients,
                                                        Stream stream = {}) {
    Unit& one = this->at(unit);
    return one.reduce(
        detail::gradients_by_unit(detail::trained_in(state_->trained, unit), gradients, 1)[0],
        stream);
  }

  /// All units: `gradients` in the order of the model, as the result.
  [[nodiscard]] std::vector<Parameter> reduce_gradients(std::vector<Whole> const& gradients,
                                                        Stream stream = {}) {
    return detail::reduce_units(this->all(), state_->trained, gradients, stream);
  }

  /// All units: gradients in the tensors of a model of the same type.
  [[nodiscard]] std::vector<Parameter> reduce_gradients(Model& gradients, Stream stream = {}) {
    return reduce_gradients(detail::gradient_list<T, Space>(gradients, state_->trained), stream);
  }

  /// The sharded state of the model: parameters as they are sharded, all else as the model has it.
  /// Frees whole parameters first. No communication.
  [[nodiscard]] StateDict state_dict() {
    this->reshard();
    StateDict dict;
    for_each([&](std::string const& name, auto& leaf, Role role) {
      if (role != Role::transient) {
        dict.insert(name, detail::state_value(leaf));
      }
    });
    return dict;
  }

  /// Shows the model with sharded parameters to a visitor. Frees whole parameters first.
  template <class Visitor>
  void visit(Visitor&& v) {
    this->reshard();
    for_each([&](std::string const& name, auto& leaf, Role role) {
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
    std::vector<detail::TrainedParameter> trained = {};
  };

  /// Calls `f(name, leaf, role)` with the sharded parameters in the places of the whole ones.
  template <class F>
  void for_each(F&& f) {
    detail::AddressMap<Parameter*> sharded;
    for (auto const& slot : state_->slots) {
      for (Whole const* leaf : slot->leaves) {
        sharded.add(leaf, &slot->sharded);
      }
    }
    detail::for_each_sharded<Whole>(model(), sharded, f);
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
  return detail::make_sharded<FullyShard, P>(model, MeshSharding(mesh), std::move(options));
}

/// The same over a pair of communicators: parameters are cut over the first and replicated over the
/// second. They become `ShardedTensor`s, which know no mesh.
template <class P = void, class Model, Communicator Comm>
[[nodiscard]] auto fully_shard(Model& model,
                               Comm const& shard_group,
                               Comm const& replicate_group,
                               FullyShardOptions options = {}) {
  return detail::make_sharded<FullyShard, P>(model, GroupSharding(shard_group, replicate_group),
                                             std::move(options));
}

/// The same on top of tensor parallelism over the last dimension of the mesh; the model's whole
/// tensors in a pass are this rank's tensor-parallel parts.
template <class P = void, class Model, std::size_t N, Communicator Comm>
[[nodiscard]] auto fully_shard(Model& model,
                               DeviceMesh<N, Comm> const& mesh,
                               TensorParallel parallel,
                               FullyShardOptions options = {}) {
  return detail::make_sharded<FullyShard, P>(
      model, TensorParallelSharding(mesh, std::move(parallel)), std::move(options));
}

}  // namespace v0
}  // namespace shardmesh
