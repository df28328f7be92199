// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// files PLACE [--small] [--runs N] [--device cpu|cuda] [--ranks N] [--engine threads|nccl|processes] [--all] [--files-only]
// [--budget SECONDS]: how long ranks take to save and load parameters, and 400 tiny tensors, in a directory below PLACE,
// besides what memory and PLACE can do.
//   cpu   two ranks, 1 GiB in host memory; --all adds the rows that the other form has
//   cuda  built with CUDA and NCCL: a rank a GPU (default: all of them), 4.3 GB of float32 sharded over them; ranks are threads,
//         threads over NCCL, or processes that a launcher has started
// Prints a line of JSON for each case, the median of the runs after a first one that is not counted, so that memory is warm
// where a row does not say that it is cold. Every element that was loaded (and, but for the short CPU form, gathered or
// offloaded) is compared before a figure is printed; where one is wrong, or a case fails, its line says so, the others go on,
// and the program ends with 1. bench/files.py runs it beside torch_files.py, which does the same with PyTorch.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/memory/host_pool.hpp>
#include <shardmesh/shardmesh.hpp>

#ifdef SHARDMESH_BENCH_CUDA
#include <shardmesh/comm/nccl/launch.hpp>
#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#endif

#include "files_cases.hpp"
#include "files_support.hpp"

namespace sm = shardmesh;
namespace fs = std::filesystem;
using bench::Cases;
using bench::Limits;
using bench::Model;
using bench::Rows;
using bench::Settings;

namespace {

/// Starts ranks, each with a world and memory of the device.
/// @returns whether `body` returned true on rank 0, which hears of what fails elsewhere.
template <class Body>
bool on_ranks([[maybe_unused]] Settings const& settings, int ranks, Body const& body) {
  bool good = false;
  auto const rank = [&]<class Space>(auto const& world, Space) {
    bool const mine = body.template operator()<Space>(world);
    if (world.rank() == 0) {
      good = mine;
    }
  };
  std::string const problem = bench::problem_of([&] {
#ifdef SHARDMESH_BENCH_CUDA
    if (settings.device == "cuda") {
      auto const on_gpu = [&](auto const& world) { rank(world, sm::CudaMemory{}); };
      if (settings.engine == "threads") {
        sm::launch(sm::threads_on_devices{ranks}, on_gpu);
      } else if (settings.engine == "nccl") {
        sm::launch(sm::nccl_threads{ranks}, on_gpu);
      } else {
        sm::launch(sm::nccl_environment{}, [&](auto const& world) {
          on_gpu(world);
          good = good || world.rank() != 0;
        });
      }
      return;
    }
#endif
    sm::launch(sm::threads{ranks}, [&](auto const& world) { rank(world, sm::HostMemory{}); });
  });
  if (!problem.empty()) {
    bench::tell_error("all", sm::detail::concat("launch of ", std::to_string(ranks), " ranks"),
                      problem);
  }
  return good && problem.empty();
}

/// @returns whether all went well.
bool measure(Settings const& settings) {
  bool const on_gpus = settings.device == "cuda";
  Model const tiny = bench::tiny_model("tiny");
  Model const large = bench::large_model(settings.small ? sm::Shape{64, 128}
                                         : on_gpus      ? sm::Shape{8192, 4096}
                                                        : sm::Shape{4096, 2048});
  Limits known;
  bool good = on_ranks(settings, settings.ranks, [&]<class Space>(auto const& world) {
    auto const mesh = sm::device_mesh<1>(world, {world.size()});
    using Mesh = std::remove_cvref_t<decltype(mesh)>;
    Limits mine;
    // What cannot even be set up (memory) must not take the others with it.
    auto const part = [&](char const* what, auto const& work) {
      bool fine = false;
      std::string const problem = bench::problem_of([&] { fine = work(); });
      if (!problem.empty() && world.rank() == 0) {
        bench::tell_error(what, "all", problem);
      }
      return fine && problem.empty();
    };
    bool const limits =
        part("limits", [&] { return bench::limits<Space>(world, settings, large.bytes(), mine); });
    if (world.rank() == 0) {
      known = mine;
    }
    bool const small =
        part("tiny", [&] { return Cases<Space, Mesh>(mesh, settings, tiny, mine).run(); });
    return part("large", [&] { return Cases<Space, Mesh>(mesh, settings, large, mine).run(); }) &&
           small && limits;
  });
  if (settings.all && settings.engine != "processes") {
    // The file that the ranks have left, by one of them alone.
    bool const fine = on_ranks(settings, 1, [&]<class Space>(auto const& world) {
      auto const mesh = sm::device_mesh<1>(world, {1});
      Rows<Space, std::remove_cvref_t<decltype(world)>> rows(world, settings, large.name);
      auto state = bench::state_of<Space>(mesh, large, sm::Shard{0}, false);
      rows(
          "safetensors load, one GPU", large.bytes(), known.load(known.to_device_one),
          [&] { bench::clear<Space>(state); },
          [&] { sm::load_any(world, settings.place + "/model.safetensors", state); },
          [&] { return bench::wrong<Space>(large, state); });
      return !rows.failed();
    });
    good = fine && good;
  }
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  std::optional<int> ranks;
  for (int i = 1; i < argc; ++i) {
    std::string_view const word = argv[i];
    bool const has_value = i + 1 < argc;
    if (word == "--small") {
      settings.small = true;
    } else if (word == "--all") {
      settings.all = true;
    } else if (word == "--files-only") {
      settings.files_only = true;
    } else if (word == "--runs" && has_value) {
      settings.runs = std::max(1, std::atoi(argv[++i]));
    } else if (word == "--ranks" && has_value) {
      ranks = std::max(1, std::atoi(argv[++i]));
    } else if (word == "--budget" && has_value) {
      settings.budget = std::atof(argv[++i]);
    } else if (word == "--device" && has_value) {
      settings.device = argv[++i];
    } else if (word == "--engine" && has_value) {
      settings.engine = argv[++i];
    } else {
      settings.place = word;
    }
  }
  bool const on_gpus = settings.device == "cuda";
#ifdef SHARDMESH_BENCH_CUDA
  settings.ranks = on_gpus ? std::max(1, sm::cuda::device_count()) : settings.ranks;
#else
  if (on_gpus) {
    std::fprintf(stderr, "files: this program was built without CUDA and NCCL\n");
    return 2;
  }
#endif
  bool const known_engine =
      settings.engine == "threads" || settings.engine == "nccl" || settings.engine == "processes";
  if (settings.place.empty() || settings.place.starts_with("--") || !known_engine ||
      (settings.device != "cpu" && !on_gpus)) {
    std::fprintf(stderr,
                 "usage: files PLACE [--small] [--runs N] [--device cpu|cuda] [--ranks N] "
                 "[--engine threads|nccl|processes] [--all] [--files-only] [--budget SECONDS]\n");
    return 2;
  }
  settings.ranks = ranks.value_or(settings.ranks);
  settings.all = settings.all || on_gpus;
  fs::create_directories(settings.place);
  sm::host_pool().keep_at_most(std::size_t{on_gpus ? 20U : 4U} << 30);
  bool const good = measure(settings);
  fs::remove(settings.place + "/model.safetensors");
  return good ? 0 : 1;
}
