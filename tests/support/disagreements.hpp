// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Ranks that do not do the same. Every two of some actions, one by the last rank and one by all others,
// on any engine: sizes of messages often agree, so that only what ranks say of their calls can tell.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/mesh.hpp>
#include <shardmesh/state.hpp>
#include <shardmesh/tensor.hpp>
#include <shardmesh/tensor/fused_exchange.hpp>

namespace test {

namespace sm = shardmesh;

/// What the ranks share before they part.
template <class Comm>
struct DisagreementWorld {
  Comm comm;
  sm::DeviceMesh<1, Comm> line;
  sm::DeviceMesh<2, Comm> grid;

  explicit DisagreementWorld(Comm const& world)
      : comm(world),
        line(sm::device_mesh(world, {sm::index_t{world.size()}})),
        grid(sm::device_mesh(world, {sm::index_t{world.size()}, 1})) {}
};

template <class Comm>
struct DisagreementAction {
  std::string name;
  std::function<void(DisagreementWorld<Comm> const&)> run;
};

template <class Space, class Comm, class T = float>
auto part_of(DisagreementWorld<Comm> const& world,
             sm::Shape const& shape,
             sm::Placement const& placement) {
  sm::Layout const layout(shape, world.line.shape(), sm::PlacementList{placement});
  sm::Tensor<T, Space> const local(layout.local_shape(world.line.coordinate()));
  return sm::DistTensor<T, sm::DeviceMesh<1, Comm>, sm::PlacementList, Space>(world.line, layout,
                                                                              local);
}

/// Actions in which ranks move tensors. All of them differ, some in nothing but a name.
template <class Space, class Comm>
std::vector<DisagreementAction<Comm>> moving_actions() {
  using World = DisagreementWorld<Comm>;
  using List = sm::PlacementList;
  sm::Placement const whole = sm::Replicate{};
  sm::Placement const rows = sm::Shard<0>{};
  sm::Placement const columns = sm::Shard<1>{};
  sm::Placement const sum = sm::Partial<>{};
  sm::Placement const max = sm::Placement::partial(sm::ReduceOp::max);
  std::vector<DisagreementAction<Comm>> actions;
  auto const moves = [&actions]<class T>(std::string const& name, sm::Shape const& shape,
                                         sm::Placement from, sm::Placement to, T) {
    actions.push_back({name, [=](World const& world) {
                         static_cast<void>(sm::redistribute(
                             part_of<Space, Comm, T>(world, shape, from), List{to}));
                       }});
  };
  moves("float S0 -> S1", {24, 24}, rows, columns, float{});
  moves("float S1 -> S0", {24, 24}, columns, rows, float{});
  moves("int32 S0 -> S1", {24, 24}, rows, columns, std::int32_t{});
  moves("float S0 -> R", {24, 24}, rows, whole, float{});
  moves("float S1 -> R", {24, 24}, columns, whole, float{});
  moves("wide S0 -> R", {12, 48}, rows, whole, float{});
  moves("high S0 -> R", {48, 12}, rows, whole, float{});
  moves("double S0 -> R", {24, 12}, rows, whole, double{});
  moves("sum -> R", {24, 24}, sum, whole, float{});
  moves("max -> R", {24, 24}, max, whole, float{});
  moves("sum -> S0", {24, 24}, sum, rows, float{});
  moves("int32 sum -> S0", {24, 24}, sum, rows, std::int32_t{});
  actions.push_back({"full_tensor", [=](World const& world) {
                       static_cast<void>(sm::full_tensor(part_of<Space>(world, {24, 24}, rows)));
                     }});
  actions.push_back({"gather_to_first", [=](World const& world) {
                       static_cast<void>(
                           sm::gather_to_first(part_of<Space>(world, {24, 24}, rows)));
                     }});
  for (char const* const unit : {"first", "second"}) {
    actions.push_back(
        {std::string("unit ") + unit, [=](World const& world) {
           auto const before = part_of<Space>(world, {24, 24}, rows);
           auto const after = part_of<Space>(world, {24, 24}, whole);
           std::vector<sm::Plan> const plans{sm::make_plan(before.layout(), after.layout())};
           sm::FusedExchange("unshard", unit, plans, world.comm.rank())
               .run(world.comm, std::vector{before.to_local()}, std::vector{after.to_local()});
         }});
  }
  auto const states = [&actions]<class T>(std::string const& name, std::string const& key,
                                          sm::Shape const& shape, sm::Placement from, T) {
    actions.push_back({name, [=](World const& world) {
                         sm::StateDict dict;
                         dict.insert(key, part_of<Space, Comm, T>(world, shape, from));
                         static_cast<void>(sm::full_state_dict(dict));
                       }});
  };
  states("full state", "w", {24, 24}, rows, float{});
  states("full state of another key", "v", {24, 24}, rows, float{});
  states("full state of another type", "w", {24, 24}, rows, std::int32_t{});
  states("full state of another shape", "w", {12, 48}, rows, float{});
  states("full state of a larger tensor", "w", {480, 24}, rows, float{});
  states("full state of another placement", "w", {24, 24}, columns, float{});
  for (bool const swapped : {false, true}) {
    actions.push_back({swapped ? "full state of two keys, swapped" : "full state of two keys",
                       [=](World const& world) {
                         sm::StateDict dict;
                         for (char const* const key : {swapped ? "b" : "a", swapped ? "a" : "b"}) {
                           dict.insert(key, part_of<Space>(world, {24, 24}, rows));
                         }
                         static_cast<void>(sm::full_state_dict(dict));
                       }});
  }
  return actions;
}

/// Full states in the form that is given the ranks, to which it tells the roots.
template <class Space, class Comm>
std::vector<DisagreementAction<Comm>> states_with_communicator() {
  using World = DisagreementWorld<Comm>;
  std::vector<DisagreementAction<Comm>> actions;
  auto const states = [&actions]<class T>(std::string const& name, sm::Shape const& shape,
                                          sm::GatherOptions const& options, T) {
    actions.push_back({"full state with " + name, [=](World const& world) {
                         sm::StateDict dict;
                         dict.insert("w", part_of<Space, Comm, T>(world, shape, sm::Shard<0>{}));
                         static_cast<void>(sm::full_state_dict(world.comm, dict, options));
                       }});
  };
  states("a communicator", {24, 24}, {}, float{});
  states("a communicator of another shape", {12, 48}, {}, float{});
  states("a communicator of another type", {24, 24}, {}, std::int32_t{});
  states("another root", {24, 24}, {{1}}, float{});
  return actions;
}

/// Actions in which ranks only talk.
template <class Comm>
std::vector<DisagreementAction<Comm>> talking_actions() {
  using World = DisagreementWorld<Comm>;
  return {
      {"barrier", [](World const& world) { world.comm.barrier(); }},
      {"all_gather_value",
       [](World const& world) { static_cast<void>(sm::all_gather_value(world.comm, 1)); }},
      {"all_gather", [](World const& world) { static_cast<void>(world.comm.all_gather({})); }},
      {"split", [](World const& world) { static_cast<void>(world.comm.split(0, 0)); }},
      {"device_mesh",
       [](World const& world) {
         static_cast<void>(sm::device_mesh(world.comm, {sm::index_t{world.comm.size()}}, {"a"}));
       }},
      {"device_mesh of other names",
       [](World const& world) {
         static_cast<void>(sm::device_mesh(world.comm, {sm::index_t{world.comm.size()}}, {"b"}));
       }},
      {"group 0", [](World const& world) { static_cast<void>(world.grid.group(0)); }},
      {"group 1", [](World const& world) { static_cast<void>(world.grid.group(1)); }},
  };
}

template <class Comm>
std::vector<DisagreementAction<Comm>> all_actions() {
  auto actions = moving_actions<sm::HostMemory, Comm>();
  for (auto& more : {states_with_communicator<sm::HostMemory, Comm>(), talking_actions<Comm>()}) {
    actions.insert(actions.end(), more.begin(), more.end());
  }
  return actions;
}

/// SHARDMESH_CALLS: how many calls that agree are made in all.
inline std::size_t agreeing_calls(std::size_t usual) {
  char const* const text = std::getenv("SHARDMESH_CALLS");
  return text == nullptr ? usual : static_cast<std::size_t>(std::atoll(text));
}

/// Makes calls that agree with those of the other ranks.
/// @returns what the first false alarm says; empty if there was none.
template <class Comm>
std::string false_alarm(Comm const& comm, std::size_t calls) {
  auto const actions = all_actions<Comm>();
  DisagreementWorld<Comm> const world(comm);
  for (std::size_t i = 0; i < calls; ++i) {
    auto const& action = actions[i % actions.size()];
    try {
      action.run(world);
    } catch (std::exception const& error) {
      return action.name + ": " + error.what();
    }
  }
  return "";
}

/// Does this error of a rank name two sides? What is wrong with it, if not.
inline std::string fault_of_mismatch(std::string const& what) {
  bool const calls = what.find("ranks made different calls: rank ") != std::string::npos &&
                     what.find(" is in ") != std::string::npos;
  bool const arguments = what.find("ranks disagree; rank ") != std::string::npos &&
                         what.find(" has ") != std::string::npos;
  std::size_t const first = what.find("rank ");
  bool const two = first != std::string::npos && what.find(", rank ", first) != std::string::npos;
  return (calls || arguments) && two ? "" : "does not name both sides: " + what;
}

/// Runs what the calling rank does of a disagreement.
/// @returns what is wrong: empty if it got an error that names both sides.
template <class Comm>
std::string fault_of(DisagreementAction<Comm> const& action, Comm const& comm) {
  DisagreementWorld<Comm> const world(comm);
  try {
    action.run(world);
  } catch (sm::MismatchError const& error) {
    return fault_of_mismatch(error.what());
  } catch (std::exception const& error) {
    return std::string("another kind of error: ") + error.what();
  }
  return "no error";
}

}  // namespace test
