// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The behaviour rows as bodies that run on every engine and in every memory space. Ranks report what
// is wrong as text (empty: nothing), so that the bodies need no test framework.

#include <cstddef>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../../examples/support/models.hpp"

namespace test {

namespace sm = shardmesh;

/// Collects what is wrong.
class Report {
 public:
  void expect(bool good, std::string const& what) {
    if (!good && problem_.empty()) {
      problem_ = what;
    }
  }
  [[nodiscard]] std::string const& problem() const { return problem_; }

 private:
  std::string problem_;
};

/// B1: a 2-D mesh 2 x (world / 2), named, sliced; coordinates, groups and their rank lists.
template <class Comm>
std::string b1_mesh(Comm const& world) {
  Report report;
  int const columns = world.size() / 2;
  auto const mesh = sm::device_mesh(world, {2, columns}, {"replicate", "shard"});
  auto const again = sm::device_mesh(world, {2, columns}, {"replicate", "shard"});
  report.expect(mesh == again, "equal meshes must compare equal");
  int const row = world.rank() / columns;
  int const column = world.rank() % columns;
  report.expect(mesh.coordinate() == sm::Coordinate{row, column}, "coordinate");
  report.expect(mesh.group("replicate").rank() == row && mesh.group("replicate").size() == 2,
                "group along replicate");
  report.expect(mesh.group("shard").rank() == column && mesh.group("shard").size() == columns,
                "group along shard");
  std::vector<int> along_shard;
  for (int i = 0; i < columns; ++i) {
    along_shard.push_back(row * columns + i);
  }
  report.expect(mesh.group_ranks("shard") == along_shard, "ranks along shard");
  report.expect(mesh.group_ranks("replicate") == std::vector<int>{column, columns + column},
                "ranks along replicate");
  auto const shard = mesh["shard"];
  report.expect(shard.shape() == sm::Shape{columns} && shard.ranks() == along_shard &&
                    shard.coordinate() == sm::Coordinate{column},
                "1-D sub-mesh");
  report.expect(mesh.group("shard").world_ranks() == along_shard, "world ranks of the group");
  auto const flat = mesh.flatten("all");
  report.expect(flat.size() == world.size() && flat.coordinate()[0] == world.rank(), "flatten");
  auto const other = sm::device_mesh(world, {2, columns}, {"a", "b"});
  report.expect(!(mesh == other), "meshes of different names must differ");
  return report.problem();
}

/// A parameter with random values, the same whole tensor on every mesh and engine.
template <class Space, class Mesh, class P>
auto parameter_maker(Mesh const& mesh, P const& placements, std::mt19937& random) {
  return [&mesh, placements, &random](sm::Shape const& shape) {
    sm::Tensor<float> full(shape);
    for (float& value : full.span()) {
      value = static_cast<float>(random() % 2001) / 1000.0F - 1.0F;
    }
    return sm::distribute(full.template clone<Space>(), mesh, placements, sm::DataSource::own);
  };
}

/// One optimizer step with gradients made of the parameters, so that the moments are not zero.
template <class Adam>
void step_once(Adam& adam) {
  using Parameter = std::remove_cvref_t<decltype(adam.parameters().front().value)>;
  std::vector<Parameter> gradients;
  for (auto const& parameter : adam.parameters()) {
    gradients.push_back(Parameter(parameter.value.mesh(), parameter.value.layout(),
                                  parameter.value.to_local().clone()));
  }
  adam.step(gradients);
}

/// B2: Dense under hybrid sharding from a mesh: every value is a DistTensor (Replicate, Shard(0)) on
/// the mesh given; of the optimizer's state every one but `step`.
template <class Space, class Comm>
std::string b2_hsdp_state(Comm const& world) {
  Report report;
  auto const mesh = sm::device_mesh(world, {2, world.size() / 2}, {"replicate", "shard"});
  std::mt19937 random(2);
  auto model = models::dense(
      parameter_maker<Space>(mesh, sm::placements<sm::Replicate, sm::Shard<0>>, random));
  using Parameter = decltype(model.net1.weight);
  sm::Adam<Parameter> adam(model, {.lr = 0.1});
  step_once(adam);
  sm::PlacementList const wanted{sm::Replicate{}, sm::Shard{0}};
  auto const check = [&](sm::StateEntry const& entry) {
    bool const good = entry.is_tensor() && entry.tensor().is_distributed() &&
                      entry.tensor().layout().placements() == wanted &&
                      entry.tensor().mesh() == mesh.description() &&
                      entry.tensor().memory() == Space::kind &&
                      entry.tensor().template get<Parameter>() != nullptr;
    report.expect(good, entry.key + " must be a DistTensor (Replicate, Shard(0)) on the mesh");
  };
  std::size_t tensors = 0;
  for (sm::StateEntry const& entry : sm::state_dict(model)) {
    check(entry);
    ++tensors;
  }
  report.expect(tensors == 8, "Dense has 8 parameters");
  for (sm::StateEntry const& entry : adam.state_dict()) {
    bool const is_step = entry.key.size() > 5 && entry.key.substr(entry.key.size() - 5) == ".step";
    if (is_step) {
      report.expect(!entry.tensor().is_distributed() && entry.tensor().shape() == sm::Shape{},
                    entry.key + " must be a plain scalar");
      report.expect(entry.tensor().template get<sm::Tensor<float>>()->span()[0] == 1.0F,
                    "one step was taken");
    } else if (entry.is_tensor()) {
      check(entry);
    }
  }
  return report.problem();
}

/// B7 (parity): Mlp stacks for d = 2 ... 5 under 1-D sharding: what the module's own members hold is
/// what the visitor gets, key by key.
template <class Space, class Comm>
std::string b7_parity(Comm const& world) {
  Report report;
  auto const mesh = sm::device_mesh(world, {world.size()}, {"shard"});
  for (sm::index_t d = 2; d <= 5; ++d) {
    std::mt19937 random(static_cast<unsigned>(d));
    auto model =
        models::mlp_stack(d, parameter_maker<Space>(mesh, sm::placements<sm::Shard<0>>, random));
    sm::StateDict own;
    auto const add = [&own](std::string const& name, auto const& layer) {
      own.insert(name + ".weight", sm::AnyTensor(layer.weight));
      own.insert(name + ".bias", sm::AnyTensor(layer.bias));
    };
    add("0.in_proj", model.first.in_proj);
    add("0.out_proj", model.first.out_proj);
    add("1.0.in_proj", model.middle.mlp.in_proj);
    add("1.0.out_proj", model.middle.mlp.out_proj);
    add("1.1", model.middle.linear);
    add("2.in_proj", model.last.in_proj);
    add("2.out_proj", model.last.out_proj);
    std::string const what = sm::difference(own, sm::state_dict(model));
    report.expect(what.empty(), "d = " + std::to_string(d) + ": " + what);
    // The local part is the chunk rule's: d rows over the ranks, uneven and empty ones included.
    auto const rows = sm::chunk(d, world.size(), world.rank()).size();
    report.expect(model.middle.linear.weight.to_local().shape() == sm::Shape{rows, d},
                  "local rows of 1.1.weight");
  }
  return report.problem();
}

/// Every row that fits the world, on every rank: `report(row, problem)` hears what this rank found
/// wrong, nothing if empty.
template <class Space, class Comm, class Report>
void run_rows(Comm const& world, Report&& report) {
  if (world.size() % 2 == 0) {
    report("B1 mesh", b1_mesh(world));
    report("B2 HSDP state", b2_hsdp_state<Space>(world));
  }
  report("B7 1-D FSDP parity", b7_parity<Space>(world));
}

}  // namespace test
