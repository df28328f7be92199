// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What bench/files.cpp measures: the limits of links, memory and the place, and the rows of a model.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <future>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/memory/host_pool.hpp>
#include <shardmesh/shardmesh.hpp>

#include "files_support.hpp"

namespace bench {

namespace fs = std::filesystem;

/// Seconds for the bytes of the large model: what links, memory and the place allow, measured here.
struct Limits {
  double to_host_one = 0;  ///< over one GPU's link
  double to_host_all = 0;  ///< over those of all
  double to_device_one = 0;
  double to_device_all = 0;
  double write = 0;
  double read = 0;

  /// Of reading, then bringing to devices, both at once.
  [[nodiscard]] Limit load(double to_device) const {
    return {std::max(read, to_device), read > to_device ? "raw read" : "raw copy to device"};
  }
};

inline constexpr auto nothing = [] {};
inline constexpr auto unchecked = [] { return std::string(); };

/// Copies between the host and the device of each rank, of the bytes of its part.
template <class Space, class Comm>
void link_limits(
    Comm const& comm, Rows<Space, Comm>& rows, void* host, std::size_t part, Limits& found) {
  sm::Buffer<Space> const device(part);
  Space::fill_zero(device.data(), part);
  auto const copy = [&](bool to_host, bool one) {
    if (!one || comm.rank() == 0) {
      Space::copy(to_host ? all_bytes(device.data(), host, part)
                          : all_bytes(host, device.data(), part));
    }
  };
  int const n = comm.size();
  double const bytes = static_cast<double>(part);
  auto const row = [&](char const* what, bool to_host, bool one) {
    return rows(
               what, one ? bytes : bytes * n, {}, nothing, [&] { copy(to_host, one); }, unchecked)
        .seconds;
  };
  found.to_host_one = n * row("raw copy to host, one GPU", true, true);
  found.to_host_all = row("raw copy to host, all GPUs", true, false);
  found.to_device_one = n * row("raw copy to device, one GPU", false, true);
  found.to_device_all = row("raw copy to device, all GPUs", false, false);
}

/// What memory and the place allow: each rank has its part of the bytes, and a file of its own, or several that threads write.
template <class Space, class Comm>
bool limits(Comm const& comm, Settings const& settings, double bytes, Limits& found) {
  Rows<Space, Comm> rows(comm, settings, "large");
  auto const threads = static_cast<std::size_t>(
      settings.all
          ? std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / comm.size(), 1, 8)
          : 1);
  std::size_t const each =
      static_cast<std::size_t>(bytes) / static_cast<std::size_t>(comm.size()) / threads;
  std::size_t const part = each * threads;
  sm::Buffer<HostSide<Space>> const target(part);
  std::memset(target.data(), 2, part);
  if constexpr (Space::host_accessible) {
    std::vector<std::byte> const source(part, std::byte{1});
    rows(
        "raw memcpy", bytes, {}, nothing, [&] { std::memcpy(target.data(), source.data(), part); },
        unchecked);
  } else {
    link_limits(comm, rows, target.data(), part, found);
  }
  auto const on_threads = [&](auto const& work) {
    std::vector<std::future<void>> running;
    for (std::size_t i = 1; i < threads; ++i) {
      running.push_back(std::async(std::launch::async, work, i));
    }
    work(std::size_t{0});
    for (auto& one : running) {
      one.get();
    }
  };
  auto const path = [&](std::size_t i) {
    return sm::detail::concat(settings.place, "/raw-", std::to_string(comm.rank()), "-",
                              std::to_string(i));
  };
  auto const span = [&](std::size_t i) {
    return std::span<std::byte>(static_cast<std::byte*>(target.data()) + i * each, each);
  };
  auto const write = [&](std::size_t i) {
    fs::remove(path(i));
    sm::File file = sm::File::create(path(i));
    file.write_at(0, span(i));
    file.finish();
  };
  auto const read = [&](std::size_t i) { sm::File::open(path(i)).read_at(0, span(i)); };
  found.write =
      rows(
          "raw write and fsync", bytes, {}, nothing, [&] { on_threads(write); }, unchecked)
          .seconds;
  found.read = rows("raw read", bytes, {}, nothing, [&] { on_threads(read); }, unchecked).seconds;
  for (std::size_t i = 0; i < threads; ++i) {
    fs::remove(path(i));
  }
  return !rows.failed();
}

/// The rows of one model.
template <class Space, class Mesh>
class Cases {
 public:
  using Comm = std::remove_cvref_t<decltype(std::declval<Mesh const&>().comm())>;

  Cases(Mesh const& mesh, Settings const& settings, Model const& model, Limits const& limits)
      : mesh_(mesh),
        settings_(settings),
        model_(model),
        limits_(limits),
        directory_(settings.place + "/checkpoint"),
        file_(settings.place + "/model.safetensors"),
        rows_(mesh.comm(), settings, model.name),
        saved_(state_of<Space>(mesh, model, sm::Shard{0}, true)),
        same_(state_of<Space>(mesh, model, sm::Shard{0}, false)) {}

  /// @returns whether all went well.
  bool run() {
    files();
    if (!settings_.files_only) {
      states();
      if (settings_.all && model_.name == "large") {
        save_in_background("async save, caller blocked, device snapshot", sm::SnapshotSpace::same);
        save_in_background("async save, caller blocked, host snapshot", sm::SnapshotSpace::host);
      }
    }
    mesh_.comm().barrier("bench");
    if (mesh_.comm().rank() == 0) {
      fs::remove_all(directory_);
    }
    return !rows_.failed();
  }

 private:
  template <class Before, class Run, class Check>
  void row(char const* what,
           Limit const& limit,
           Before const& before,
           Run const& run,
           Check const& check) {
    // The limits are for the bytes of the large model.
    bool const known = settings_.all && model_.name == "large";
    rows_(what, model_.bytes(), known ? limit : Limit{}, before, run, check);
    result_ = {};
  }

  [[nodiscard]] bool is_first() const { return mesh_.comm().rank() == 0; }

  /// In host memory it would change what the caches hold, so there a row of a load begins with zeros, once.
  void clear_before_load(sm::StateDict const& state) const {
    if (settings_.all) {
      clear<Space>(state);
    }
  }

  /// A load into `state`, which is checked.
  template <class Load>
  void load_row(char const* what, double to_device, sm::StateDict& state, Load const& load) {
    row(
        what, limits_.load(to_device), [&] { clear_before_load(state); }, [&] { load(state); },
        [&] { return wrong<Space>(model_, state); });
  }

  void files() {
    auto const& comm = mesh_.comm();
    double const all = limits_.to_device_all;
    auto const remove_old = [&] {
      if (is_first()) {
        fs::remove_all(directory_);
        fs::remove(file_);
      }
    };
    auto const load = [&](sm::StateDict& state) { sm::load(comm, directory_, state); };
    auto const load_file = [&](sm::StateDict& state) { sm::load_any(comm, file_, state); };
    row(
        "save", {limits_.write, "raw write and fsync"}, remove_old,
        [&] { sm::save(comm, directory_, saved_); }, unchecked);
    load_row("load, same layout", all, same_, load);
    {
      auto other = state_of<Space>(mesh_, model_, sm::Shard{1}, false);
      load_row("load, resharding", all, other, load);
    }
    row(
        "safetensors save", {limits_.write, "raw write and fsync"},
        [&] {
          if (is_first()) {
            fs::remove(file_);
          }
        },
        [&] { sm::save_safetensors(comm, file_, saved_); }, unchecked);
    clear<Space>(same_);
    load_row("safetensors load", all, same_, load_file);
    if (settings_.all && !settings_.files_only && model_.name == "large") {
      // Each byte is read once, and every link carries all of them, or brings a part that devices pass on.
      auto whole = state_of<Space>(mesh_, model_, sm::Replicate{}, false);
      load_row("safetensors load, replicated", all, whole, load_file);
    }
  }

  void states() {
    auto const& comm = mesh_.comm();
    Limit const one{limits_.to_host_one, "raw copy to host, one GPU"};
    Limit const all{limits_.to_host_all, "raw copy to host, all GPUs"};
    // What was made is kept until it has been checked; the CPU form has always counted the time to give it back, here and
    // beside.
    auto const full = [&] {
      result_ = sm::full_state_dict(comm, saved_);
      if (!settings_.all) {
        result_ = {};
      }
    };
    auto const offload = [&] {
      result_ = sm::offloaded(saved_);
      if (!settings_.all) {
        result_ = {};
      }
    };
    auto const drop = [&] { result_ = {}; };
    auto const empty = [&] {
      result_ = {};
      sm::host_pool().release();
    };
    auto const whole = [&] {
      return settings_.all && is_first() ? wrong<Space>(model_, result_) : std::string();
    };
    auto const parts = [&] {
      return settings_.all ? wrong<Space>(model_, result_) : std::string();
    };
    row("full state", one, drop, full, whole);
    row("offload", all, drop, offload, parts);
    // The same with a pool of host memory that has nothing ready.
    row(
        "load, cold pool", limits_.load(limits_.to_device_all),
        [&] {
          clear_before_load(same_);
          empty();
        },
        [&] { sm::load(comm, directory_, same_); }, [&] { return wrong<Space>(model_, same_); });
    row("full state, cold pool", one, empty, full, whole);
    row("offload, cold pool", all, empty, offload, parts);
  }

  /// The time until the caller may change its tensors; the save is waited for, and loaded, untimed.
  void save_in_background(char const* what, sm::SnapshotSpace space) {
    auto const& comm = mesh_.comm();
    std::optional<sm::AsyncSaver<Comm>> saver;
    std::optional<sm::Saving> saving;
    sm::AsyncOptions options;
    options.snapshot = space;
    bool const on_host = space == sm::SnapshotSpace::host;
    row(
        what, on_host ? Limit{limits_.to_host_all, "raw copy to host, all GPUs"} : Limit{},
        [&] {
          if (saving) {
            saving->wait();
          } else {
            saver.emplace(comm, options);
          }
        },
        [&] { saving = saver->save(directory_, saved_); },
        [&] {
          saving->wait();
          clear<Space>(same_);
          sm::load(comm, directory_, same_);
          return wrong<Space>(model_, same_);
        });
  }

  Mesh const& mesh_;
  Settings const& settings_;
  Model const& model_;
  Limits const& limits_;
  std::string directory_;
  std::string file_;
  Rows<Space, Comm> rows_;
  sm::StateDict saved_;
  sm::StateDict same_;
  sm::StateDict result_;  ///< of the run before
};

}  // namespace bench
