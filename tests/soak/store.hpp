// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Checkpoints of a soak: how they are written, by whom, and what must be read from them.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>

#include "truth.hpp"

namespace soak {

using World = sm::ThreadsCommunicator;

enum class Form : std::uint8_t { dcp, background, file, hub, by_rank };
inline constexpr std::array<char const*, 5> form_names{
    "save", "save in the background", "save as safetensors", "save as several safetensors",
    "save as safetensors by rank"};

/// A checkpoint on the disk, and what it must hold.
struct Slot {
  std::string path;
  Form form = Form::dcp;
  StateSpec holds;
};

/// What the first rank of those that found something has found.
[[nodiscard]] inline std::string first_of(std::vector<std::string> const& faults) {
  for (std::size_t rank = 0; rank < faults.size(); ++rank) {
    if (!faults[rank].empty()) {
      return "rank " + std::to_string(rank) + " of " + std::to_string(faults.size()) + ": " +
             faults[rank];
    }
  }
  return {};
}

template <class F>
[[nodiscard]] std::string fault_or_error(F const& f) {
  try {
    return f();
  } catch (sm::Error const& error) {
    return error.what();
  }
}

/// Runs on every rank of a world.
/// @returns what the first rank of those that found something has found.
template <class Body>
[[nodiscard]] std::string on_ranks(WorldSpec const& world, Body const& body) {
  std::vector<std::string> faults(static_cast<std::size_t>(world.ranks));
  sm::launch(sm::threads{world.ranks}, [&](World& comm) {
    on_mesh(comm, world, [&](auto const& mesh) {
      faults[static_cast<std::size_t>(comm.rank())] = body(comm, mesh);
    });
  });
  return first_of(faults);
}

inline void write(World& comm, Slot const& slot, sm::StateDict const& dict) {
  switch (slot.form) {
    case Form::dcp:
      return sm::save(comm, slot.path, dict);
    case Form::background: {
      sm::AsyncSaver saver(comm);
      sm::Saving const saving = saver.save(slot.path, dict);
      for (sm::StateEntry const& entry : dict) {  // the copy is what counts
        if (entry.is_tensor()) {
          entry.tensor().assign(std::vector<std::byte>(entry.tensor().bytes(), std::byte{0x5a}));
        }
      }
      return saving.wait();
    }
    case Form::file:
      return sm::save_safetensors(comm, slot.path, dict);
    case Form::hub:
      return sm::save_safetensors_sharded(comm, slot.path, dict, 500, sm::Existing::replace);
    case Form::by_rank:
      if (comm.rank() == 0) {
        std::filesystem::remove_all(slot.path);  // it replaces nothing
      }
      comm.barrier();
      return sm::save_safetensors_by_rank(comm, slot.path, dict);
  }
}

/// Saves a state by ranks of some world; `wrongly` with a bit changed.
[[nodiscard]] inline std::string save_to(Slot const& slot,
                                         WorldSpec const& world,
                                         bool wrongly = false) {
  return on_ranks(world, [&](World& comm, auto const& mesh) {
    sm::StateDict const dict = state_on(slot.holds, world, mesh, true);
    if (wrongly) {
      for (sm::StateEntry const& entry : dict) {
        if (entry.is_tensor() && entry.tensor().bytes() > 0) {
          auto bytes = entry.tensor().local_bytes();
          bytes.back() ^= std::byte{1};
          entry.tensor().assign(bytes);
        }
      }
    }
    write(comm, slot, dict);
    return std::string();
  });
}

/// Loads a checkpoint by ranks of some world, and compares.
[[nodiscard]] inline std::string load_from(Slot const& slot, WorldSpec const& world) {
  return on_ranks(world, [&](World& comm, auto const& mesh) {
    sm::StateDict dict = state_on(slot.holds, world, mesh, false);
    sm::load_any(comm, slot.path, dict);
    return fault_of_state(dict, slot.holds, world, mesh);
  });
}

}  // namespace soak
