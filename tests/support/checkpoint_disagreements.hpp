// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Ranks that do not save or load the same, on any engine; see disagreements.hpp.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>

#include "disagreements.hpp"

namespace test {

/// Saves and loads, of which none may be met by another. Those of a tensor that has the same name write
/// to one directory, `folder`/a.
/// @param folder  of one test; `folder`/before is a checkpoint of "w", saved with `save_before`.
template <class Comm>
std::vector<DisagreementAction<Comm>> checkpoint_actions(std::string const& folder) {
  using World = DisagreementWorld<Comm>;
  std::vector<DisagreementAction<Comm>> actions;
  auto const saves = [&]<class T>(std::string const& name, std::string const& directory,
                                  std::vector<std::string> const& keys, sm::Shape const& shape,
                                  sm::Placement placement, T) {
    actions.push_back({name, [=](World const& world) {
                         sm::StateDict dict;
                         for (std::string const& key : keys) {
                           dict.insert(key,
                                       part_of<sm::HostMemory, Comm, T>(world, shape, placement));
                         }
                         sm::save(world.comm, folder + "/" + directory, dict);
                       }});
  };
  sm::Placement const rows = sm::Shard<0>{};
  saves("save", "a", {"w"}, {24, 24}, rows, float{});
  saves("save elsewhere", "b", {"w"}, {24, 24}, rows, float{});
  saves("save of another key", "a", {"v"}, {24, 24}, rows, float{});
  saves("save of two keys", "a", {"v", "w"}, {24, 24}, rows, float{});
  saves("save of another type", "a", {"w"}, {24, 24}, rows, std::int32_t{});
  saves("save of another shape", "a", {"w"}, {12, 48}, rows, float{});
  saves("save of another placement", "a", {"w"}, {24, 24}, sm::Shard<1>{}, float{});
  auto const loads = [&](std::string const& name, sm::LoadOptions const& options) {
    actions.push_back({name, [=](World const& world) {
                         sm::StateDict dict;
                         dict.insert("w", part_of<sm::HostMemory, Comm>(world, {24, 24}, rows));
                         sm::load(world.comm, folder + "/before", dict, options);
                       }});
  };
  loads("load", {});
  loads("load with a cast", {.dtype = sm::DTypePolicy::cast});
  loads("load without what is missing", {.missing = sm::KeyPolicy::collect});
  loads("load in small rounds", {.round_bytes = 8});
  return actions;
}

template <class Comm>
void save_before(Comm const& comm, std::string const& folder) {
  DisagreementWorld<Comm> const world(comm);
  sm::StateDict dict;
  dict.insert("w", part_of<sm::HostMemory, Comm>(world, {24, 24}, sm::Shard<0>{}));
  sm::save(comm, folder + "/before", dict);
}

/// What is wrong with what a rank of several hears of saves that differ in their tensors.
inline std::string fault_of_save(std::string const& what) {
  bool const two = what.find(" offer different things as \"") != std::string::npos ||
                   what.find(" overlap: ") != std::string::npos;
  bool const lacks = what.find("; every rank of its mesh must take part") != std::string::npos;
  return (two || lacks) && what.find("rank") != std::string::npos
             ? ""
             : "does not say which ranks: " + what;
}

/// Runs all pairs of them, the second by the last rank.
/// @param pairs  gets how many there were.
/// @returns what is wrong.
template <class Comm>
std::string fault_of_checkpoints(Comm const& comm, std::string const& folder, std::size_t& pairs) {
  save_before(comm, folder);
  DisagreementWorld<Comm> const world(comm);
  auto const actions = checkpoint_actions<Comm>(folder);
  bool const last = comm.rank() + 1 == comm.size();
  pairs = 0;
  for (std::size_t a = 0; a < actions.size(); ++a) {
    for (std::size_t b = 0; b < actions.size(); ++b) {
      if (a == b) {
        continue;
      }
      ++pairs;
      std::string fault = "no error";
      try {
        actions[last ? b : a].run(world);
      } catch (sm::MismatchError const& error) {
        fault = fault_of_mismatch(error.what());
      } catch (sm::ShapeError const& error) {
        fault = fault_of_save(error.what());
      } catch (std::exception const& error) {
        fault = std::string("another kind of error: ") + error.what();
      }
      if (!fault.empty()) {
        return actions[a].name + " against " + actions[b].name + ": " + fault;
      }
    }
  }
  return "";
}

}  // namespace test
