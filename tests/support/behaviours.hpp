// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The behaviour rows as bodies that run on every engine and in every memory space. Ranks report what
// is wrong as text (empty: nothing), so that the bodies need no test framework. The mathematics of
// the models runs on the host; what is sharded, gathered and reduced lies in `Space`.

#include <algorithm>
#include <cstddef>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/fsdp/flat_shard.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/state_dict.hpp>

#include "chain_math.hpp"
#include "report.hpp"
#include "reshard_row.hpp"

namespace test {

template <class Net>
using AdamOf = sm::Adam<typename Net::Parameter>;

/// Dense with random weights, whole, the same for a seed everywhere.
template <class Space>
auto make_dense(unsigned seed) {
  return models::dense(tensor_maker<Space>(seed));
}

/// How many replicas the hybrid meshes of a job have: 2 x n/2, n/2 x 2 and 1 x n.
[[nodiscard]] inline std::vector<int> replica_counts(int ranks) {
  std::vector<int> found{2};
  if (ranks > 4) {
    found.push_back(ranks / 2);
  }
  found.push_back(1);
  return found;
}

/// Runs `row(comm, replicas)` on every hybrid mesh of an even number of ranks; 8 also on 2 x 2 out of
/// 2 x 2 x 2. @returns what is wrong first.
template <class Comm, class Row>
std::string on_hybrid_meshes(Comm const& world, Row const& row) {
  std::string problem;
  auto const run = [&](Comm const& comm, int replicas, std::string const& within) {
    std::string const found = row(comm, replicas);
    if (problem.empty() && !found.empty()) {
      problem = "mesh " + std::to_string(replicas) + "x" + std::to_string(comm.size() / replicas) +
                within + ": " + found;
    }
  };
  for (int replicas : replica_counts(world.size())) {
    run(world, replicas, "");
  }
  if (world.size() == 8) {
    auto const mesh = sm::device_mesh(world, {2, 2, 2}, {"replicate", "shard", "inner"});
    run(mesh.slice({"replicate", "shard"}).comm(), 2, " of 2x2x2");
  }
  return problem;
}

/// Dense under hybrid sharding over replicas x shards, with Adam, after one training step: built from
/// a mesh, or (Groups) from a pair of communicators.
template <class Space, bool Groups, class Comm>
class TrainedDense {
  static auto shard(models::Dense<sm::Tensor<float, Space>>& model,
                    Comm const& world,
                    int replicas) {
    int const columns = world.size() / replicas;
    if constexpr (Groups) {
      return sm::fully_shard(model, world.split(world.rank() / columns, world.rank()),
                             world.split(world.rank() % columns, world.rank()));
    } else {
      return sm::fully_shard(model,
                             sm::device_mesh(world, {replicas, columns}, {"replicate", "shard"}));
    }
  }

 public:
  TrainedDense(Comm const& world, int replicas)
      : model(make_dense<Space>(2)), net(shard(model, world, replicas)), adam(net, {.lr = 0.1}) {
    step(world, 1);
  }
  void step(Comm const& world, unsigned number) {
    adam.step(sharded_gradients<Space>(net, 100 * number + static_cast<unsigned>(world.rank())));
    typename Space::Stream{}.synchronize();
  }

  models::Dense<sm::Tensor<float, Space>> model;
  decltype(shard(std::declval<models::Dense<sm::Tensor<float, Space>>&>(),
                 std::declval<Comm const&>(),
                 0)) net;
  AdamOf<decltype(net)> adam;
};

/// B1: a 2-D mesh, named, sliced; coordinates, groups and their rank lists.
template <class Comm>
std::string b1_mesh(Comm const& world, int replicas) {
  Report report;
  int const columns = world.size() / replicas;
  std::vector<int> const ranks = world.world_ranks();
  auto const mesh = sm::device_mesh(world, {replicas, columns}, {"replicate", "shard"});
  auto const again = sm::device_mesh(world, {replicas, columns}, {"replicate", "shard"});
  report.expect(mesh == again, "equal meshes must compare equal");
  int const row = world.rank() / columns;
  int const column = world.rank() % columns;
  report.expect(mesh.coordinate() == sm::Coordinate{row, column}, "coordinate");
  report.expect(mesh.group("replicate").rank() == row && mesh.group("replicate").size() == replicas,
                "group along replicate");
  report.expect(mesh.group("shard").rank() == column && mesh.group("shard").size() == columns,
                "group along shard");
  std::vector<int> along_shard;
  for (int i = 0; i < columns; ++i) {
    along_shard.push_back(ranks[static_cast<std::size_t>(row * columns + i)]);
  }
  std::vector<int> along_replicate;
  for (int i = 0; i < replicas; ++i) {
    along_replicate.push_back(ranks[static_cast<std::size_t>(i * columns + column)]);
  }
  report.expect(mesh.group_ranks("shard") == along_shard, "ranks along shard");
  report.expect(mesh.group_ranks("replicate") == along_replicate, "ranks along replicate");
  auto const shard = mesh["shard"];
  report.expect(shard.shape() == sm::Shape{columns} && shard.ranks() == along_shard &&
                    shard.coordinate() == sm::Coordinate{column},
                "1-D sub-mesh");
  report.expect(mesh.group("shard").world_ranks() == along_shard, "world ranks of the group");
  auto const flat = mesh.flatten("all");
  report.expect(flat.size() == world.size() && flat.coordinate()[0] == world.rank(), "flatten");
  auto const other = sm::device_mesh(world, {replicas, columns}, {"a", "b"});
  report.expect(!(mesh == other), "meshes of different names must differ");
  return report.problem();
}

[[nodiscard]] inline bool is_step(sm::StateEntry const& entry) {
  return entry.path.back() == sm::PathElement("step");
}

/// B2: Dense under hybrid sharding from a mesh: every value is a DistTensor (Replicate, Shard(0)) on
/// the mesh given; of the optimizer's state every one but `step`, a plain scalar.
template <class Space, class Comm>
std::string b2_hsdp_state(Comm const& world, int replicas) {
  Report report;
  TrainedDense<Space, false, Comm> trained(world, replicas);
  auto const mesh =
      sm::device_mesh(world, {replicas, world.size() / replicas}, {"replicate", "shard"})
          .description();
  sm::PlacementList const wanted{sm::Replicate{}, sm::Shard{0}};
  using Parameter = sm::DistTensor<float, sm::DeviceMesh<2, Comm>,
                                   sm::Placements<sm::Replicate, sm::Shard<0>>, Space>;
  auto const check = [&](sm::StateEntry const& entry) {
    bool const good = entry.is_tensor() && entry.tensor().layout().placements() == wanted &&
                      entry.tensor().mesh() == mesh && entry.tensor().memory() == Space::kind &&
                      entry.tensor().template get<Parameter>() != nullptr;
    report.expect(good, entry.key + " must be a DistTensor (Replicate, Shard(0)) on the mesh");
  };
  std::size_t tensors = 0;
  for (sm::StateEntry const& entry : sm::state_dict(trained.net)) {
    check(entry);
    ++tensors;
  }
  for (sm::StateEntry const& entry : trained.adam.state_dict()) {
    if (!entry.is_tensor()) {
      continue;
    }
    ++tensors;
    if (is_step(entry)) {
      auto const* step = entry.tensor().template get<sm::Tensor<float>>();
      report.expect(step != nullptr && step->shape() == sm::Shape{} && step->span()[0] == 1.0F,
                    entry.key + " must be a plain scalar, 1 after one step");
    } else {
      check(entry);
    }
  }
  report.expect(tensors == 8 + 8 * 3, "Dense has 8 parameters, Adam 3 tensors for each");
  return report.problem();
}

/// B3: the same from a pair of communicators gives sharded tensors without a mesh, with the keys,
/// order, local values and memory space of the DistTensors; offloaded and not.
template <class Space, class Comm>
std::string b3_representation(Comm const& world, int replicas) {
  Report report;
  TrainedDense<Space, false, Comm> meshed(world, replicas);
  TrainedDense<Space, true, Comm> grouped(world, replicas);
  auto const compare = [&](sm::StateDict const& a, sm::StateDict const& b, sm::MemoryKind memory) {
    report.expect(a.size() == b.size(), "the number of keys");
    auto other = b.begin();
    for (sm::StateEntry const& entry : a) {
      if (other == b.end()) {
        break;
      }
      report.expect(entry.key == other->key, "key " + entry.key + " against " + other->key);
      report.expect(entry.is_tensor() == other->is_tensor(), entry.key + ": kind of value");
      if (entry.is_tensor() && other->is_tensor()) {
        auto const& x = entry.tensor();
        auto const& y = other->tensor();
        report.expect(x.local_bytes() == y.local_bytes(), entry.key + ": local values");
        report.expect(x.local_shape() == y.local_shape(), entry.key + ": local shapes");
        report.expect(x.shape() == y.shape() && x.dtype() == y.dtype(), entry.key + ": shapes");
        if (!is_step(entry)) {
          report.expect(x.memory() == memory && y.memory() == memory, entry.key + ": memory");
          report.expect(x.kind() == sm::TensorKind::distributed, entry.key + ": DistTensor");
          report.expect(y.kind() == sm::TensorKind::sharded && y.mesh().ranks.empty(),
                        entry.key + ": sharded tensor without a mesh");
        }
      } else {
        report.expect(entry.plain() == other->plain(), entry.key + ": plain value");
      }
      ++other;
    }
  };
  auto const model_a = sm::state_dict(meshed.net);
  auto const model_b = sm::state_dict(grouped.net);
  compare(model_a, model_b, Space::kind);
  compare(meshed.adam.state_dict(), grouped.adam.state_dict(), Space::kind);
  compare(sm::offloaded(model_a), sm::offloaded(model_b), sm::MemoryKind::host);
  compare(sm::offloaded(meshed.adam.state_dict()), sm::offloaded(grouped.adam.state_dict()),
          sm::MemoryKind::host);
  return report.problem();
}

/// B4 and B5: `state_of(trained)` goes to a stream in memory, one more step changes it, the stream
/// brings it back; the stream holds the state as it is, or offloaded.
template <class Space, bool Groups, class Comm, class StateOf>
std::string round_trip(Comm const& world, int replicas, StateOf const& state_of) {
  Report report;
  for (bool offload : {false, true}) {
    std::string const which = offload ? "offloaded" : "in place";
    TrainedDense<Space, Groups, Comm> trained(world, replicas);
    sm::StateDict const reference = sm::offloaded(state_of(trained));  // copies
    std::stringstream stream;
    sm::save_stream(stream, offload ? sm::offloaded(state_of(trained)) : state_of(trained));
    trained.step(world, 2);
    report.expect(sm::difference(sm::offloaded(state_of(trained)), reference) != "",
                  which + ": another step must change the state");
    sm::StateDict state = state_of(trained);
    sm::load_stream(stream, state);
    report.expect_equal(sm::difference(sm::offloaded(state_of(trained)), reference), which);
    for (sm::StateEntry const& entry : state_of(trained)) {
      report.expect(!entry.is_tensor() || is_step(entry) || entry.tensor().memory() == Space::kind,
                    entry.key + ": memory space");
    }
  }
  return report.problem();
}

template <class Space, class Comm>
std::string b4_optimizer_round_trip(Comm const& world, int replicas) {
  auto const state_of = [](auto& trained) { return trained.adam.state_dict(); };
  std::string const problem = round_trip<Space, false>(world, replicas, state_of);
  return problem.empty() ? round_trip<Space, true>(world, replicas, state_of) : problem;
}

template <class Space, class Comm>
std::string b5_model_round_trip(Comm const& world, int replicas) {
  auto const state_of = [](auto& trained) { return sm::state_dict(trained.net); };
  std::string const problem = round_trip<Space, false>(world, replicas, state_of);
  return problem.empty() ? round_trip<Space, true>(world, replicas, state_of) : problem;
}

/// A module whose `dense` child is sharded and whose other child is plain, under another name on
/// each rank.
template <class Net, class P>
struct PartlySharded {
  Net* dense;
  std::string sparse_name;
  models::Linear<P> sparse;

  template <class Visitor>
  void visit(Visitor&& v) {
    v("dense", *dense);
    v(sparse_name, sparse);
  }
};

/// B6: optimizer state under `dense` is a DistTensor (Replicate, Shard(0)), under `sparse*` plain and
/// local. Ranks hold different keys, and nothing hangs: also in full states and round trips.
template <class Space, class Comm>
std::string b6_root_not_sharded(Comm const& world, int replicas) {
  using Plain = sm::Tensor<float, Space>;
  Report report;
  TrainedDense<Space, false, Comm> trained(world, replicas);
  auto make = tensor_maker<Space>(60 + static_cast<unsigned>(world.rank()));
  PartlySharded<decltype(trained.net), Plain> root{
      &trained.net, world.rank() == 0 ? "sparse0" : "sparse1", models::linear(8, 8, make)};
  sm::Adam<typename decltype(trained.net)::Parameter> sharded(root, {.lr = 0.1});
  sm::Adam<Plain> plain(root, {.lr = 0.1});
  report.expect(plain.parameters().size() == 2, "the plain child has 2 parameters");
  sharded.step(sharded_gradients<Space>(trained.net, 7 + static_cast<unsigned>(world.rank())));
  // The output of the plain child is all-reduced, so its input gradient is the sum of all ranks'.
  auto const flat = sm::device_mesh(world, {world.size()}, {"all"});
  auto const rows = HostTensor::from(
      {4, 8}, std::span<float const>(random_rows(static_cast<unsigned>(world.rank()), 4, 8)));
  auto const output = sm::full_tensor(sm::from_local(rows.template clone<Space>(), flat,
                                                     sm::placements<sm::Partial<sm::ReduceOp::sum>>,
                                                     sm::Shape{4, 8}));
  auto const sum = sm::to_host(output);
  HostTensor weight_gradient = HostTensor::zeros({8, 8});
  for (std::size_t i = 0; i < 32; ++i) {
    weight_gradient.span()[i % 64] += sum.span()[i];
  }
  plain.step(
      {weight_gradient.template clone<Space>(), HostTensor::zeros({8}).template clone<Space>()});
  typename Space::Stream{}.synchronize();

  sm::PlacementList const wanted{sm::Replicate{}, sm::Shard{0}};
  sm::StateDict state{{"dense_optim", sharded.state_dict()}, {"sparse_optim", plain.state_dict()}};
  std::size_t dense = 0;
  std::size_t sparse = 0;
  for (sm::StateEntry const& entry : state) {
    if (!entry.is_tensor() || is_step(entry)) {
      continue;
    }
    bool const is_dense = entry.key.find(".state.dense.") != std::string::npos;
    (is_dense ? dense : sparse) += 1;
    if (is_dense) {
      report.expect(entry.tensor().kind() == sm::TensorKind::distributed &&
                        entry.tensor().layout().placements() == wanted,
                    entry.key + " must be a DistTensor (Replicate, Shard(0))");
    } else {
      report.expect(entry.key.find(".state." + root.sparse_name + ".") != std::string::npos &&
                        entry.tensor().kind() == sm::TensorKind::plain &&
                        entry.tensor().local_shape() == entry.tensor().shape(),
                    entry.key + " must be plain and local");
    }
  }
  report.expect(dense == 16 && sparse == 4, "16 sharded and 4 plain tensors of optimizer state");

  sm::StateDict const full = sm::full_state_dict(sm::state_dict(root));
  report.expect(full.size() == (world.rank() == 0 ? 10U : 0U), "full state on rank 0 only");
  report.expect(world.rank() != 0 || full.contains("sparse0.weight"), "rank 0's own plain child");
  std::stringstream stream;
  sm::StateDict const reference = sm::offloaded(state);
  sm::save_stream(stream, state);
  sharded.step(sharded_gradients<Space>(trained.net, 9));
  sm::load_stream(stream, state);
  report.expect_equal(sm::difference(sm::offloaded(state), reference), "round trip");
  return report.problem();
}

/// B7: Mlp stacks for d = 2 ... 5 under 1-D sharding (uneven and empty shards): the state that the
/// sharded module reports is what the generic visitor gets, key by key; also after a forward pass that
/// left the parameters unsharded.
template <class Space, class Comm>
std::string b7_parity(Comm const& world) {
  Report report;
  auto const mesh = sm::device_mesh(world, {world.size()}, {"shard"});
  for (sm::index_t d = 2; d <= 5; ++d) {
    for (bool keep : {false, true}) {
      std::string const which = "d = " + std::to_string(d) + (keep ? ", kept whole: " : ": ");
      auto model = models::mlp_stack(d, tensor_maker<Space>(static_cast<unsigned>(d)));
      auto original = models::mlp_stack(d, tensor_maker<Space>(static_cast<unsigned>(d)));
      auto net = sm::fully_shard(model, mesh, {.reshard_after_forward = !keep});
      sm::StateDict const before = sm::offloaded(net.state_dict());
      if (keep) {
        for (std::size_t unit = 0; unit < net.units().size(); ++unit) {
          auto const pass = net.forward(unit);
        }
        report.expect(net.is_unsharded(0) && model.first.in_proj.weight.size() == 4 * d * d,
                      which + "the forward pass leaves the parameters whole");
        auto const now = host_leaves(model);  // gathered ahead on another stream, on devices
        auto const then = host_leaves(original);
        for (std::size_t i = 0; i < then.size(); ++i) {
          report.expect(std::equal(now[i].span().begin(), now[i].span().end(),
                                   then[i].span().begin(), then[i].span().end()),
                        which + "whole parameter " + std::to_string(i));
        }
      }
      sm::StateDict const generic = sm::state_dict(net);
      report.expect(!net.is_unsharded(0), which + "taking the state frees whole parameters");
      sm::StateDict const own = net.state_dict();
      report.expect_equal(sm::difference(own, generic), which + "own against generic");
      report.expect_equal(sm::difference(sm::offloaded(own), before), which + "against before");
      // The local part is the chunk rule's rows of what went in.
      auto const whole = sm::state_dict(original);
      report.expect(own.size() == whole.size(), which + "number of keys");
      for (sm::StateEntry const& entry : own) {
        auto const full = whole.at(entry.key).tensor().local_bytes();
        auto const rows = entry.tensor().shape()[0];
        auto const part = sm::chunk(rows, world.size(), world.rank());
        auto const row = static_cast<std::ptrdiff_t>(full.size()) / rows;
        report.expect(
            entry.tensor().local_bytes() ==
                std::vector<std::byte>(full.begin() + part.lo * row, full.begin() + part.hi * row),
            which + entry.key + ": rows of the chunk rule");
      }
    }
  }
  return report.problem();
}

/// B8: full state with offload: on rank 0 the unsharded original, in host memory; elsewhere nothing.
template <class Space, class Comm>
std::string b8_full_state(Comm const& world) {
  Report report;
  auto original = make_dense<Space>(8);
  sm::StateDict const wanted = sm::offloaded(sm::state_dict(original));
  auto const check = [&](auto&& net, std::string const& which) {
    sm::StateDict const full = sm::full_state_dict(sm::state_dict(net));
    if (world.rank() != 0) {
      report.expect(full.empty(), which + ": other ranks get an empty dict");
      return;
    }
    report.expect_equal(sm::difference(full, wanted), which);
    for (sm::StateEntry const& entry : full) {
      report.expect(entry.tensor().memory() == sm::MemoryKind::host, which + ": host memory");
    }
  };
  auto model = make_dense<Space>(8);
  check(sm::fully_shard(model, sm::device_mesh(world, {world.size()}, {"shard"})), "1-D");
  if (world.size() % 2 == 0) {
    int const columns = world.size() / 2;
    auto second = make_dense<Space>(8);
    check(sm::fully_shard(second, sm::device_mesh(world, {2, columns}, {"replicate", "shard"})),
          "hybrid");
    auto third = make_dense<Space>(8);
    check(sm::fully_shard(third, world.split(world.rank() / columns, world.rank()),
                          world.split(world.rank() % columns, world.rank())),
          "groups");
  }
  return report.problem();
}

/// B9: an Mlp stack trained with flat parameters, saved from sharded and from full state, is loaded
/// into the same model sharded per parameter: model and optimizer are equal.
template <class Space, class Comm>
std::string b9_flat_to_per_parameter(Comm const& world) {
  Report report;
  SharedDirectory const directory(world);
  auto const mesh = sm::device_mesh(world, {world.size()}, {"shard"});
  for (sm::index_t d = 2; d <= 5; ++d) {
    auto model = models::mlp_stack(d, tensor_maker<Space>(90));
    auto flat = sm::flat_shard(model, mesh);
    AdamOf<decltype(flat)> adam(flat.parameters(), {.lr = 0.1});
    for (unsigned step = 0; step < 3; ++step) {
      adam.step(sharded_gradients<Space>(flat, 10 * step + static_cast<unsigned>(world.rank())));
    }
    typename Space::Stream{}.synchronize();
    sm::StateDict sharded{{"model", flat.state_dict()},
                          {"optim", flat.optimizer_state_dict(adam.state_dict())}};
    sm::StateDict full = sm::full_state_dict(sharded);
    std::string const name = "d" + std::to_string(d);
    sm::save(world, directory.file(name + "-sharded"), sharded);
    sm::save(world, directory.file(name + "-full"), full);
    for (std::string const kind : {"-sharded", "-full"}) {
      auto second = models::mlp_stack(d, tensor_maker<Space>(91));
      auto net = sm::fully_shard(second, mesh);
      AdamOf<decltype(net)> other(net, {.lr = 0.3});
      sm::StateDict state{{"model", sm::state_dict(net)}, {"optim", other.state_dict()}};
      sm::load(world, directory.file(name + kind), state);
      sm::StateDict const loaded =
          sm::full_state_dict({{"model", sm::state_dict(net)}, {"optim", other.state_dict()}});
      report.expect_equal(sm::difference(loaded, full), name + kind);
      report.expect(world.rank() != 0 || loaded.size() > 14 * 4, name + kind + ": size");
    }
    // And back: the flat model takes over what it loads.
    sm::StateDict again{{"model", flat.state_dict()},
                        {"optim", flat.optimizer_state_dict(adam.state_dict())}};
    adam.step(sharded_gradients<Space>(flat, 77));
    sm::load(world, directory.file(name + "-full"), again);
    sm::StateDict model_part;
    sm::StateDict optimizer_part;
    for (sm::StateEntry const& entry : again) {
      auto path = entry.path;
      path.erase(path.begin());
      (entry.path[0] == sm::PathElement("model") ? model_part : optimizer_part)
          .insert(path, entry.value);
    }
    flat.load_state_dict(model_part);
    flat.load_optimizer_state_dict(optimizer_part, adam.state_dict());
    sm::StateDict const back = sm::full_state_dict(
        {{"model", flat.state_dict()}, {"optim", flat.optimizer_state_dict(adam.state_dict())}});
    report.expect_equal(sm::difference(back, full), name + " back into flat parameters");
  }
  return report.problem();
}

/// Every row that fits the world, on every rank: `report(row, problem)` hears what this rank found
/// wrong, nothing if empty.
template <class Space, class Comm, class Report>
void run_rows(Comm const& world, Report&& report) {
  if (world.size() % 2 == 0) {
    auto const hybrid = [&](std::string const& name, auto const& row) {
      report(name, on_hybrid_meshes(world, row));
    };
    hybrid("B1 mesh", [](Comm const& comm, int replicas) { return b1_mesh(comm, replicas); });
    hybrid("B2 HSDP state",
           [](Comm const& comm, int replicas) { return b2_hsdp_state<Space>(comm, replicas); });
    hybrid("B3 representation",
           [](Comm const& comm, int replicas) { return b3_representation<Space>(comm, replicas); });
    hybrid("B4 optimizer round trip", [](Comm const& comm, int replicas) {
      return b4_optimizer_round_trip<Space>(comm, replicas);
    });
    hybrid("B5 model round trip", [](Comm const& comm, int replicas) {
      return b5_model_round_trip<Space>(comm, replicas);
    });
    hybrid("B6 root not sharded", [](Comm const& comm, int replicas) {
      return b6_root_not_sharded<Space>(comm, replicas);
    });
  }
  report("B7 1-D FSDP parity", b7_parity<Space>(world));
  report("B8 full state with offload", b8_full_state<Space>(world));
  report("B9 flat to per-parameter", b9_flat_to_per_parameter<Space>(world));
  report("reshard on load, any mesh to any other", reshard_on_load<Space>(world));
}

}  // namespace test
