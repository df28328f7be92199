// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What it costs to bring a large model's full state to rank 0: temporary device memory at most the
// ceiling on any rank, host memory at most 16 MiB on the others. Ranks as threads, and as processes
// over NCCL. Sizes in MiB by SHARDMESH_GATHER_MIB (4096) and SHARDMESH_GATHER_CEILING_MIB (256),
// ranks by SHARDMESH_GATHER_RANKS (2). Processes are forked before the first CUDA call, so this
// program has no test framework around it: it prints a table and exits with 0, 1 or 77.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <cuda_runtime_api.h>

#include <shardmesh/comm/nccl/launch.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/memory/cuda/device_pool.hpp>
#include <shardmesh/state/full_state_dict.hpp>

namespace sm = shardmesh;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t host_allowance = 16 * mib;

std::size_t setting(char const* name, std::size_t otherwise) {
  char const* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoul(text, nullptr, 10);
}

/// A line of /proc/self/status in bytes: VmRSS, VmHWM.
std::size_t process_memory(std::string const& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) {
      return std::strtoul(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
    }
  }
  return 0;
}

/// Makes VmHWM start again from VmRSS.
void reset_process_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

/// The memory that a device has in use while this lives, by the whole machine and by the pools from
/// which this process allocates.
class DeviceWatch {
 public:
  explicit DeviceWatch(int device) : device_(device) {
    sm::cuda::check(cudaDeviceGetDefaultMemPool(&pool_, device), "cudaDeviceGetDefaultMemPool");
    std::uint64_t zero = 0;
    sm::cuda::check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrUsedMemHigh, &zero),
                    "cudaMemPoolSetAttribute");
    pool_before_ = attribute(cudaMemPoolAttrUsedMemCurrent) + sm::cuda::device_pool().used(device);
    static_cast<void>(sm::cuda::device_pool().take_peak(device));
    free_before_ = free_bytes();
    least_free_ = free_before_;
    sampler_ = std::jthread([this](std::stop_token const& stop) {
      cudaSetDevice(device_);
      while (!stop.stop_requested()) {
        least_free_ = std::min(least_free_.load(), free_bytes());
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
  }

  /// Most bytes that this process had allocated on top of what it had before.
  [[nodiscard]] std::size_t pool_growth() {
    peak_ = std::max(peak_, sm::cuda::device_pool().take_peak(device_));
    return attribute(cudaMemPoolAttrUsedMemHigh) + peak_ - pool_before_;
  }
  /// Most bytes that were taken from the device on top of what was taken before, by anybody.
  [[nodiscard]] std::size_t device_growth() const {
    return free_before_ - std::min(free_before_, least_free_.load());
  }

 private:
  [[nodiscard]] std::size_t attribute(cudaMemPoolAttr which) const {
    std::uint64_t value = 0;
    sm::cuda::check(cudaMemPoolGetAttribute(pool_, which, &value), "cudaMemPoolGetAttribute");
    return value;
  }
  [[nodiscard]] static std::size_t free_bytes() {
    std::size_t free = 0;
    std::size_t total = 0;
    sm::cuda::check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return free;
  }

  int device_;
  cudaMemPool_t pool_ = nullptr;
  std::size_t pool_before_ = 0;
  std::size_t peak_ = 0;
  std::size_t free_before_ = 0;
  std::atomic<std::size_t> least_free_{0};
  std::jthread sampler_;
};

/// Element `i` of tensor `number`; exact as a float.
float element(std::size_t number, sm::index_t i) {
  return static_cast<float>((static_cast<std::size_t>(i) * 7 + number * 13) % 16381);
}

/// A model of tensors of 64 MiB, rows and columns sharded in turn. Filled row by row, so that no rank
/// ever has much of it in host memory.
template <class Mesh>
sm::StateDict make_state(Mesh const& mesh, std::size_t bytes) {
  sm::Shape const shape{4096, 4096};
  sm::StateDict state;
  for (std::size_t number = 0; number * 64 * mib < bytes; ++number) {
    sm::Layout const layout(shape, mesh.shape(),
                            {number % 2 == 0 ? sm::Placement(sm::Shard{0}) : sm::Shard{1}});
    sm::Tensor<float, sm::CudaMemory> local(layout.local_shape(mesh.coordinate()));
    for (sm::Piece const& piece : layout.pieces(mesh.coordinate())) {
      auto const columns = static_cast<std::size_t>(piece.box.extent[1]);
      std::vector<float> row(columns);
      for (sm::index_t r = 0; r < piece.box.extent[0]; ++r) {
        sm::index_t const first = (piece.box.offset[0] + r) * shape[1] + piece.box.offset[1];
        for (std::size_t c = 0; c < columns; ++c) {
          row[c] = element(number, first + static_cast<sm::index_t>(c));
        }
        sm::copy_bytes<sm::CudaMemory, sm::HostMemory>(local.data() +
                                                           static_cast<std::size_t>(r) * columns,
                                                       row.data(), columns * sizeof(float));
        sm::CudaStream{}.synchronize();
      }
    }
    state.insert("t" + std::to_string(number),
                 sm::AnyTensor(sm::DistTensor<float, Mesh, sm::PlacementList, sm::CudaMemory>(
                     mesh, layout, local)));
  }
  return state;
}

/// What is wrong with a full state; empty if nothing.
std::string check_full(sm::StateDict const& full, std::size_t tensors) {
  if (full.size() != tensors) {
    return "the full state has " + std::to_string(full.size()) + " tensors";
  }
  std::size_t number = 0;
  for (sm::StateEntry const& entry : full) {
    auto const* const values = static_cast<float const*>(entry.tensor().data());
    for (sm::index_t i = 0; i < sm::volume(entry.tensor().shape()); ++i) {
      if (values[i] != element(number, i)) {
        return entry.key + " is wrong at element " + std::to_string(i);
      }
    }
    ++number;
  }
  return {};
}

std::string limit(std::size_t used, std::size_t allowed, char const* what) {
  return used <= allowed ? std::string()
                         : std::string(what) + ": " + std::to_string(used / mib) +
                               " MiB, at most " + std::to_string(allowed / mib) + " are allowed; ";
}

/// Gathers a model to rank 0 and measures. `alone`: is this rank a process of its own? `sharing`: ranks
/// on this rank's device.
template <class Comm>
int run_rank(Comm const& world, std::string const& engine, bool alone, int sharing) {
  std::size_t const bytes = setting("SHARDMESH_GATHER_MIB", 4096) * mib;
  std::size_t const ceiling = setting("SHARDMESH_GATHER_CEILING_MIB", 256) * mib;
  auto const mesh = sm::device_mesh(world, {world.size()});
  {  // what the engines allocate once is not the gather's
    sm::StateDict const small = make_state(mesh, 128 * mib);
    static_cast<void>(sm::full_state_dict(world, small, {{0}, ceiling}));
  }
  sm::StateDict const state = make_state(mesh, bytes);
  sm::CudaStream{}.synchronize();
  world.barrier();
  bool const has_host = alone || world.rank() == 0;  // threads share one: rank 0 measures it
  std::size_t resident = 0;
  if (has_host) {
    reset_process_peak();
    resident = process_memory("VmRSS");
  }
  int device = 0;
  sm::cuda::check(cudaGetDevice(&device), "cudaGetDevice");
  DeviceWatch watch(device);
  world.barrier();
  sm::GatherReport report;
  auto const start = std::chrono::steady_clock::now();
  sm::StateDict const full = sm::full_state_dict(world, state, {{0}, ceiling}, &report);
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
  std::size_t const host = has_host ? process_memory("VmHWM") - resident : 0;
  world.barrier();

  std::string problem = world.rank() == 0 ? check_full(full, state.size())
                        : full.empty()    ? ""
                                          : "only rank 0 may have a full state; ";
  problem += limit(report.peak_staging_bytes, ceiling, "staging as reported");
  std::size_t const whole = world.rank() == 0 ? state.size() * 64 * mib : 0;
  auto const ranks = static_cast<std::size_t>(sharing);
  problem += limit(watch.pool_growth(), alone ? ceiling : ceiling * ranks, "device memory");
  // A driver that maps the root's host memory by pages of 4 KiB keeps 8 bytes for each on the device.
  std::size_t const page_tables = whole / 4096 * 8;
  problem += limit(watch.device_growth(), ceiling * ranks + page_tables, "memory of the device");
  problem += limit(host, whole + host_allowance, "host memory");
  std::printf(
      "%-26s rank %d: staging %4zu MiB, device pool +%4zu MiB, device +%4zu MiB, %s, %.2f s  %s\n",
      engine.c_str(), world.rank(), report.peak_staging_bytes / mib, watch.pool_growth() / mib,
      watch.device_growth() / mib,
      has_host ? ("host +" + std::to_string(host / mib) + " MiB").c_str() : "-", seconds.count(),
      problem.empty() ? "ok" : problem.c_str());
  std::fflush(stdout);
  int failures = 0;
  for (std::string const& one : sm::all_gather_text(world, problem)) {
    failures += one.empty() ? 0 : 1;
  }
  return failures;
}

}  // namespace

int main() {
  // This process must not touch CUDA before it forks, so a child counts the devices.
  int const devices =
      sm::spawn_processes(1, [] { return std::min(sm::cuda::device_count(), 100); })[0];
  if (devices == 0) {
    std::puts("SKIP: no usable GPU on this machine");
    return 77;
  }
  auto const ranks = static_cast<int>(setting("SHARDMESH_GATHER_RANKS", 2));
  int const sharing = (ranks + devices - 1) / devices;
  int failures = 0;
  auto const process = [&] {
    int wrong = 1;
    sm::launch(sm::nccl_environment{.share_devices = sharing > 1}, [&](auto& world) {
      wrong = run_rank(world, "nccl, " + std::to_string(ranks) + " processes", true, sharing);
    });
    return wrong == 0 ? 0 : 1;
  };
  for (int const status : sm::spawn_processes(ranks, process)) {
    failures += status == 0 ? 0 : 1;
  }
  try {
    sm::launch(sm::threads_on_devices{ranks, std::chrono::seconds(300)}, [&](auto& world) {
      int const wrong =
          run_rank(world, std::to_string(ranks) + " threads on devices", false, sharing);
      failures += world.rank() == 0 ? wrong : 0;
    });
  } catch (std::exception const& error) {
    std::printf("threads on devices: %s\n", error.what());
    ++failures;
  }
  std::printf("%s\n", failures == 0 ? "all ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}
