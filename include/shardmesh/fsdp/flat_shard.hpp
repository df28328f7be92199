// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/address_map.hpp>
#include <shardmesh/fsdp/collect.hpp>
#include <shardmesh/fsdp/flat_state.hpp>
#include <shardmesh/fsdp/flat_unit.hpp>
#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/fsdp/sharding.hpp>
#include <shardmesh/fsdp/unit_schedule.hpp>
#include <shardmesh/optim/parameter_groups.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

/// A model whose parameters are concatenated, unit by unit, into flat parameters of which each rank
/// keeps an equal part (FSDP1); made by `flat_shard`. Every rank has the same number of elements,
/// whatever the shapes.
///
/// The optimizer works on the flat parameters: `Adam(net.parameters())`. State dicts have the
/// model's own parameters, each sharded along dimension 0, as those of `FullyShard`: they are copies,
/// so a state that was loaded into one is taken over with `load_state_dict`.
template <class Model, class Sharding, Element T, MemorySpace Space, class P>
class FlatShard : public detail::UnitSchedule<detail::FlatUnit<Sharding, T, Space, P>, Space> {
  using Unit = detail::FlatUnit<Sharding, T, Space, P>;
  using Schedule = detail::UnitSchedule<Unit, Space>;

 public:
  using Whole = Tensor<T, Space>;
  using Parameter = typename Unit::Parameter;
  using Stream = typename Space::Stream;

  /// Users call `flat_shard`.
  FlatShard(Model& model, Sharding sharding, FullyShardOptions options, Stream stream)
      : Schedule(options.reshard_after_forward),
        state_(std::make_unique<State>(State{&model, std::move(sharding), {}})) {
    if (!state_->sharding.is_member()) {
      throw InvalidArgument(
          "shardmesh::flat_shard: this rank is not part of the mesh; call it on the "
          "ranks of the mesh only");
    }
    auto found = detail::collect_parameters<T, Space>(model);
    detail::agree_on_parameters(state_->sharding, found);
    if (options.from == DataSource::first_rank) {
      detail::take_from_first(state_->sharding, found, stream);
    }
    auto const grouping = detail::group_parameters(model, found, options.units);
    for (std::size_t unit = 0; unit < grouping.names.size(); ++unit) {
      std::vector<detail::FoundParameter<T, Space>> members;
      for (std::size_t i = 0; i < found.size(); ++i) {
        if (grouping.unit_of[i] == unit) {
          members.push_back(found[i]);
        }
      }
      for (auto const& one : members) {
        if (one.role == Role::parameter) {
          state_->trained.push_back(
              {one.names.front(), one.leaves.front()->shape(), unit, one.tied()});
        }
      }
      this->add(std::make_unique<Unit>(grouping.names[unit], members, state_->sharding,
                                       options.gradients, stream));
    }
  }

  [[nodiscard]] Model& model() const noexcept { return *state_->model; }

  /// The trained flat parameters, one a unit, for an optimizer.
  [[nodiscard]] std::vector<NamedParameter<Parameter>> parameters() const {
    std::vector<NamedParameter<Parameter>> found;
    for (std::size_t unit = 0; unit < this->unit_count(); ++unit) {
      if (this->at(unit).is_trained()) {
        found.push_back({this->at(unit).flat_name(), this->at(unit).flat()});
      }
    }
    return found;
  }

  /// Reduces the gradients of all units: this rank's whole gradients of the trained parameters, unit
  /// by unit, become the shards of their average (or sum) over all ranks, one a flat parameter.
  /// @throws ShapeError if a gradient is missing or has another shape than its parameter.
  /// @collective over the shard and the replicate group.
  [[nodiscard]] std::vector<Parameter> reduce_gradients(std::vector<Whole> const& gradients,
                                                        Stream stream = {}) {
    auto const by_unit = detail::gradients_by_unit(state_->trained, gradients, this->unit_count());
    std::vector<Parameter> reduced;
    for (std::size_t unit = 0; unit < by_unit.size(); ++unit) {
      if (this->at(unit).is_trained()) {
        reduced.push_back(this->at(unit).reduce(by_unit[unit], stream));
      }
    }
    return reduced;
  }

  /// The state of the model with its own parameters, each sharded along dimension 0: copies.
  /// @collective over the shard group.
  [[nodiscard]] StateDict state_dict() {
    this->reshard();
    std::vector<std::vector<Parameter>> parts;
    detail::AddressMap<Parameter*> sharded;
    for (std::size_t unit = 0; unit < this->unit_count(); ++unit) {
      parts.push_back(this->at(unit).unflatten(this->at(unit).flat()));
      for (std::size_t i = 0; i < parts[unit].size(); ++i) {
        for (Whole const* leaf : this->at(unit).members()[i].parameter.leaves) {
          sharded.add(leaf, &parts[unit][i]);
        }
      }
    }
    StateDict dict;
    detail::for_each_sharded<Whole>(model(), sharded,
                                    [&](std::string const& name, auto& leaf, Role role) {
                                      if (role != Role::transient) {
                                        dict.insert(name, detail::state_value(leaf));
                                      }
                                    });
    return dict;
  }

  /// Takes over the parameters of a state dict of the form of `state_dict()`.
  /// @throws KeyError if one is missing; ShapeError if one is sharded otherwise. Nothing is changed
  ///         then.
  /// @collective over the shard group.
  void load_state_dict(StateDict const& dict) {
    this->reshard();
    std::vector<std::vector<Parameter>> parts;
    for (std::size_t unit = 0; unit < this->unit_count(); ++unit) {
      std::vector<Parameter>& members = parts.emplace_back();
      for (auto const& member : this->at(unit).members()) {
        members.push_back(
            detail::flat_member<Parameter>(dict, member.parameter.names.front(), member.shape));
      }
    }
    for (std::size_t unit = 0; unit < this->unit_count(); ++unit) {
      this->at(unit).flatten(parts[unit], this->at(unit).flat());
    }
  }

  /// The state of an optimizer of `parameters()`, in its nested form, as state of the model's own
  /// parameters: copies of the tensors. Hyper-parameters are the optimizer's own: a load sets them.
  /// @collective over the shard group.
  [[nodiscard]] StateDict optimizer_state_dict(StateDict const& flat) const {
    return detail::unflatten_state(flat, flat_units());
  }

  /// Takes over optimizer state of the form of `optimizer_state_dict` into `flat`, the optimizer's
  /// own state, with the hyper-parameters that `dict` has.
  /// @throws KeyError if a state is missing; ShapeError if one is sharded otherwise; InvalidArgument
  ///         for a hyper-parameter that makes no sense. Nothing is changed then.
  /// @collective over the shard group.
  void load_optimizer_state_dict(StateDict const& dict, StateDict const& flat) const {
    detail::flatten_state(dict, flat, flat_units());
  }

 private:
  struct State {
    Model* model;
    Sharding sharding;
    std::vector<detail::TrainedParameter> trained;  // unit by unit
  };

  [[nodiscard]] std::vector<Unit const*> flat_units() const {
    std::vector<Unit const*> all;
    for (std::size_t unit = 0; unit < this->unit_count(); ++unit) {
      all.push_back(&this->at(unit));
    }
    return all;
  }

  std::unique_ptr<State> state_;
};

/// Concatenates the parameters of each unit and shards them evenly. Takes what `fully_shard` takes.
/// @throws what `fully_shard` throws; InvalidArgument if a unit has frozen and trained parameters.
/// @collective over the mesh.
template <class P = void, class Model, std::size_t N, Communicator Comm>
[[nodiscard]] auto flat_shard(Model& model,
                              DeviceMesh<N, Comm> const& mesh,
                              FullyShardOptions options = {}) {
  return detail::make_sharded<FlatShard, P>(model, MeshSharding(mesh), std::move(options));
}
template <class P = void, class Model, Communicator Comm>
[[nodiscard]] auto flat_shard(Model& model,
                              Comm const& shard_group,
                              Comm const& replicate_group,
                              FullyShardOptions options = {}) {
  return detail::make_sharded<FlatShard, P>(model, GroupSharding(shard_group, replicate_group),
                                            std::move(options));
}

}  // namespace v0
}  // namespace shardmesh
