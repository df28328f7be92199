// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// files PLACE [--small] [--runs N]: how long two ranks take to save and load 1 GiB of parameters in host memory, and 400 tiny
// tensors, in a directory below PLACE, besides what memory and PLACE can do. Prints a line of JSON for each case, the median
// of the runs after a first one that is not counted, so that memory is warm where a row does not say that it is cold.
// bench/files.py runs it beside torch_files.py, which does the same with PyTorch.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/memory/host_pool.hpp>
#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;
namespace fs = std::filesystem;

namespace {

constexpr int ranks = 2;

/// What is saved: names and shapes.
struct Model {
  std::string name;
  std::vector<std::pair<std::string, sm::Shape>> tensors;

  [[nodiscard]] double bytes() const {
    double sum = 0;
    for (auto const& [key, shape] : tensors) {
      sum += 4.0 * static_cast<double>(sm::volume(shape));
    }
    return sum;
  }
};

Model tiny_model(std::string name) {
  Model model{std::move(name), {}};
  for (int i = 0; i < 200; ++i) {
    model.tensors.emplace_back(sm::detail::concat("tiny.", std::to_string(i), ".weight"),
                               sm::Shape{64, 128});
    model.tensors.emplace_back(sm::detail::concat("tiny.", std::to_string(i), ".bias"),
                               sm::Shape{128, 2});
  }
  return model;
}

Model large_model(bool small) {
  Model model = tiny_model("large");
  for (int i = 0; i < 32; ++i) {
    model.tensors.emplace_back(sm::detail::concat("layer.", std::to_string(i), ".weight"),
                               small ? sm::Shape{64, 128} : sm::Shape{4096, 2048});
  }
  return model;
}

/// A state dict of a model whose elements are no zeros and do not repeat.
/// @param dim  along which the ranks share each tensor.
template <class Mesh>
sm::StateDict state_of(Mesh const& mesh, Model const& model, int dim, bool filled) {
  using Dist = sm::DistTensor<float, Mesh>;
  sm::StateDict dict;
  std::uint64_t seed = 1;
  for (auto const& [key, shape] : model.tensors) {
    sm::Layout const layout(shape, mesh.shape(), {sm::Shard{dim}});
    Dist const tensor(mesh, layout, sm::Tensor<float>(Dist::expected_local_shape(mesh, layout)));
    if (filled) {
      auto const local = tensor.to_local();
      auto* const elements = static_cast<std::uint32_t*>(static_cast<void*>(local.data()));
      std::uint64_t state =
          seed++ * 0x9e3779b97f4a7c15U + static_cast<std::uint64_t>(mesh.comm().rank());
      for (sm::index_t i = 0; i < sm::volume(local.shape()); ++i) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        elements[i] = static_cast<std::uint32_t>(state >> 41) | 0x3f000000U;
      }
    }
    dict.insert(key, tensor);
  }
  return dict;
}

struct Settings {
  std::string place;
  bool small = false;
  int runs = 3;
};

struct Times {
  double seconds = 0;  ///< of the slowest rank
  double cpu =
      0;  ///< seconds of processors, of all ranks together: what a busy machine does not change
};

/// Seconds of processors that this process has used.
double cpu_seconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  auto const seconds = [](timeval const& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

/// The medians of some runs.
/// @param before  is called, untimed, on the first rank.
template <class Comm, class Before, class Run>
Times seconds_of(Comm const& comm, int runs, Before const& before, Run const& run) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  std::vector<double> cpu;
  for (int i = 0; i <= runs; ++i) {
    if (comm.rank() == 0) {
      before();
    }
    comm.barrier("bench");
    double const cpu_before = cpu_seconds();
    comm.barrier("bench");
    auto const start = Clock::now();
    run();
    std::chrono::duration<double> const own = Clock::now() - start;
    double slowest = 0;
    for (double const one : sm::all_gather_value(comm, own.count(), "bench")) {
      slowest = std::max(slowest, one);
    }
    if (i > 0) {
      times.push_back(slowest);
      cpu.push_back(cpu_seconds() - cpu_before);
    }
    comm.barrier("bench");
  }
  std::sort(times.begin(), times.end());
  std::sort(cpu.begin(), cpu.end());
  return {times[times.size() / 2], cpu[cpu.size() / 2]};
}

void tell(std::string const& model, char const* what, Times const& times, double bytes) {
  std::printf("{\"model\": \"%s\", \"case\": \"%s\", \"seconds\": %.6f, \"cpu_seconds\": %.4f, "
              "\"bytes\": %.0f}\n",
              model.c_str(), what, times.seconds, times.cpu, bytes);
  std::fflush(stdout);
}

/// What memory and the place allow: each rank has half of the bytes and a file of its own.
template <class Comm>
void limits(Comm const& comm, Settings const& settings, double bytes) {
  auto const half = static_cast<std::size_t>(bytes) / ranks;
  std::vector<std::byte> source(half, std::byte{1});
  std::vector<std::byte> target(half, std::byte{2});
  std::string const path = sm::detail::concat(settings.place, "/raw-", std::to_string(comm.rank()));
  auto const none = [] {};
  Times const copy = seconds_of(comm, settings.runs, none,
                                [&] { std::memcpy(target.data(), source.data(), half); });
  Times const write = seconds_of(comm, settings.runs, none, [&] {
    fs::remove(path);
    sm::File file = sm::File::create(path);
    file.write_at(0, source);
    file.finish();
  });
  Times const read =
      seconds_of(comm, settings.runs, none, [&] { sm::File::open(path).read_at(0, target); });
  fs::remove(path);
  if (comm.rank() == 0) {
    tell("large", "raw memcpy", copy, bytes);
    tell("large", "raw write and fsync", write, bytes);
    tell("large", "raw read", read, bytes);
  }
}

template <class Mesh>
void cases(Mesh const& mesh, Settings const& settings, Model const& model) {
  auto const& comm = mesh.comm();
  sm::StateDict const saved = state_of(mesh, model, 0, true);
  sm::StateDict same = state_of(mesh, model, 0, false);
  sm::StateDict other = state_of(mesh, model, 1, false);
  std::string const directory = settings.place + "/checkpoint";
  std::string const file = settings.place + "/model.safetensors";
  auto const none = [] {};
  auto const row = [&](char const* what, auto const& before, auto const& run) {
    Times const seconds = seconds_of(comm, settings.runs, before, run);
    if (comm.rank() == 0) {
      tell(model.name, what, seconds, model.bytes());
    }
  };
  auto const clear = [&] {
    fs::remove_all(directory);
    fs::remove(file);
  };
  row("save", clear, [&] { sm::save(comm, directory, saved); });
  row("load, same layout", none, [&] { sm::load(comm, directory, same); });
  row("load, resharding", none, [&] { sm::load(comm, directory, other); });
  row(
      "safetensors save", [&] { fs::remove(file); },
      [&] { sm::save_safetensors(comm, file, saved); });
  row("safetensors load", none, [&] { sm::load_any(comm, file, same); });
  row("full state", none, [&] { static_cast<void>(sm::full_state_dict(comm, saved)); });
  row("offload", none, [&] { static_cast<void>(sm::offloaded(saved)); });
  // The same with a pool of host memory that has nothing ready.
  auto const empty = [] { sm::host_pool().release(); };
  row("load, cold pool", empty, [&] { sm::load(comm, directory, same); });
  row("full state, cold pool", empty, [&] { static_cast<void>(sm::full_state_dict(comm, saved)); });
  row("offload, cold pool", empty, [&] { static_cast<void>(sm::offloaded(saved)); });
  comm.barrier("bench");
  if (comm.rank() == 0) {
    clear();
  }
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    std::string_view const word = argv[i];
    if (word == "--small") {
      settings.small = true;
    } else if (word == "--runs" && i + 1 < argc) {
      settings.runs = std::max(1, std::atoi(argv[++i]));
    } else {
      settings.place = word;
    }
  }
  if (settings.place.empty()) {
    std::fprintf(stderr, "usage: files PLACE [--small] [--runs N]\n");
    return 2;
  }
  fs::create_directories(settings.place);
  Model const large = large_model(settings.small);
  sm::host_pool().keep_at_most(std::size_t{4} << 30);
  sm::launch(sm::threads{ranks}, [&](auto const& world) {
    auto const mesh = sm::device_mesh<1>(world, {ranks});
    limits(world, settings, large.bytes());
    cases(mesh, settings, large);
    cases(mesh, settings, tiny_model("tiny"));
  });
}
