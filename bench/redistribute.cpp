// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// redistribute ENGINE RANKS SIDE...: what moving a float32 matrix of SIDE x SIDE to other placements takes, in 14 cases on a
// 1-D mesh of all ranks and a 2-D one. One JSON line a case, by rank 0; bench/redistribute.py runs it beside its peers.
//   threads      ranks are threads, in host memory, or in that of as many GPUs where built with CUDA
//   plans        what one rank takes to make a new plan, on large meshes; needs no GPU, and RANKS and SIDE say nothing
//   processes    ranks are processes that a launcher has started (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT):
//                NCCL where built with it, else sockets and host memory
// Outputs are checked, element by element, before they are timed. Figures are the slowest rank's: median of the time between
// the ends of the call's work (on a device: between two events), median of the host's time in the call, of the time until the result is there as the host sees it, and the limit:
// the bytes that a rank has to receive at the rate of a plain copy to its neighbour, all ranks at once, measured here.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <type_traits>
#include <vector>

#include <shardmesh/layout/same_parts.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/plan/cost.hpp>
#include <shardmesh/plan/plan_cache.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/redistribute.hpp>

#ifdef SHARDMESH_BENCH_CUDA
#include <shardmesh/comm/nccl/launch.hpp>
#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#else
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/threads.hpp>
#endif

namespace sm = shardmesh;

namespace {

#ifdef SHARDMESH_BENCH_CUDA
using Space = sm::CudaMemory;
#else
using Space = sm::HostMemory;
#endif
using Clock = std::chrono::steady_clock;

struct Case {
  char const* name;
  sm::PlacementList from;
  sm::PlacementList to;
};

std::vector<Case> all_cases() {
  sm::Placement const r = sm::Replicate{};
  sm::Placement const p = sm::Partial<>{};
  sm::Placement const s0 = sm::Shard{0};
  sm::Placement const s1 = sm::Shard{1};
  return {{"S0->R", {s0}, {r}},
          {"S1->R", {s1}, {r}},
          {"S0->S1", {s0}, {s1}},
          {"R->S0", {r}, {s0}},
          {"P->S0", {p}, {s0}},
          {"P->S1", {p}, {s1}},
          {"P->R", {p}, {r}},
          {"R,S0->R,R", {r, s0}, {r, r}},
          {"S0,S1->R,R", {s0, s1}, {r, r}},
          {"S0,S0->R,R", {s0, s0}, {r, r}},
          {"S0,S1->S1,S0", {s0, s1}, {s1, s0}},
          {"P,S0->R,S0", {p, s0}, {r, s0}},
          {"R,S0->S0,S0", {r, s0}, {s0, s0}},
          {"S0,R->R,S0", {s0, r}, {r, s0}}};
}

/// A whole number below 2^16 for each element: sums of it are exact.
float value_of(sm::index_t element) {
  return static_cast<float>((static_cast<std::uint64_t>(element) * 0x9e3779b97f4a7c15U) >> 48U);
}

/// What each term of a partial tensor is multiplied with: terms differ, and add up to `all_terms`.
float weight_of(sm::index_t term) {
  return static_cast<float>(term + 1);
}

double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

template <class World>
double worst(World const& world, double mine) {
  auto const all = sm::all_gather_value(world, mine);
  return *std::max_element(all.begin(), all.end());
}

/// Time on the device where there is one, else the host's.
class Timer {
 public:
  /// Milliseconds between the ends of what was before and of what `work` orders; and the host's time in it.
  template <class F>
  double operator()(F&& work, double& host_us) {
    auto const start = Clock::now();
#ifdef SHARDMESH_BENCH_CUDA
    sm::CudaStream const stream{};
    cudaEventRecord(first_, stream.handle);
    work();
    host_us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    cudaEventRecord(last_, stream.handle);
    cudaEventSynchronize(last_);
    float ms = 0;
    cudaEventElapsedTime(&ms, first_, last_);
    return static_cast<double>(ms);
#else
    work();
    host_us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    return host_us / 1e3;
#endif
  }

#ifdef SHARDMESH_BENCH_CUDA
  Timer() {
    cudaEventCreate(&first_);
    cudaEventCreate(&last_);
  }
  Timer(Timer const&) = delete;
  Timer& operator=(Timer const&) = delete;
  ~Timer() {
    cudaEventDestroy(first_);
    cudaEventDestroy(last_);
  }

 private:
  cudaEvent_t first_ = nullptr;
  cudaEvent_t last_ = nullptr;
#endif
};

template <class World>
class Bench {
 public:
  explicit Bench(World const& world)
      : world_(world),
        line_(sm::device_mesh<1>(world, {world.size()})),
        grid_(sm::device_mesh<2>(
            world,
            {world.size() >= 4 ? 2 : 1, world.size() >= 4 ? world.size() / 2 : world.size()})) {}

  /// @returns how many outputs were wrong on any rank.
  long run(sm::index_t side) {
    long wrong = 0;
    for (Case const& one : all_cases()) {
      wrong += one.from.size() == 1 ? run(line_, one, side) : run(grid_, one, side);
    }
    return wrong;
  }

 private:
  template <class Mesh>
  using Dist = sm::DistTensor<float, Mesh, sm::PlacementList, Space>;

  /// Which term of a partial tensor a rank holds, and what they all weigh together.
  template <class Mesh>
  static float term_weight(Mesh const& mesh, sm::PlacementList const& list, float& all_terms) {
    sm::index_t term = 0;
    sm::index_t terms = 1;
    for (std::size_t m = 0; m < list.size(); ++m) {
      if (list[m].is_partial()) {
        term = term * mesh.shape()[m] + mesh.coordinate()[m];
        terms *= mesh.shape()[m];
      }
    }
    all_terms = static_cast<float>(terms * (terms + 1) / 2);
    return terms == 1 ? all_terms : weight_of(term);
  }

  /// Calls `f(local index, element)` for what a rank holds.
  template <class Mesh, class F>
  static void for_each_element(Mesh const& mesh, sm::Layout const& layout, F&& f) {
    sm::Shape const local = layout.local_shape(mesh.coordinate());
    sm::index_t const columns = layout.shape()[1];
    for (sm::Piece const& piece : layout.pieces(mesh.coordinate())) {
      for (sm::index_t i = 0; i < piece.box.extent[0]; ++i) {
        sm::index_t at = (piece.local[0] + i) * local[1] + piece.local[1];
        sm::index_t element = (piece.box.offset[0] + i) * columns + piece.box.offset[1];
        for (sm::index_t j = 0; j < piece.box.extent[1]; ++j) {
          f(at++, element++);
        }
      }
    }
  }

  template <class Mesh>
  long run(Mesh const& mesh, Case const& one, sm::index_t side) {
    sm::Layout const from(sm::Shape{side, side}, mesh.shape(), one.from);
    sm::Layout const to(sm::Shape{side, side}, mesh.shape(), one.to);
    float all_terms = 1;
    float const weight = term_weight(mesh, one.from, all_terms);
    sm::Tensor<float> local(from.local_shape(mesh.coordinate()));
    for_each_element(mesh, from, [&](sm::index_t at, sm::index_t element) {
      local.data()[at] = value_of(element) * weight;
    });
    Dist<Mesh> const source(mesh, from, local.template clone<Space>());
    auto const result = sm::to_host(sm::redistribute(source, one.to).to_local());
    long wrong = 0;
    for_each_element(mesh, to, [&](sm::index_t at, sm::index_t element) {
      wrong += result.data()[at] == value_of(element) * all_terms ? 0 : 1;
    });
    wrong = static_cast<long>(worst(world_, static_cast<double>(wrong)));

    std::size_t const bytes = static_cast<std::size_t>(side * side) * sizeof(float);
    int const runs = bytes > (std::size_t{1} << 28U) ? 15 : 50;
    std::vector<double> times;
    std::vector<double> host;
    for (int i = -5; i < runs; ++i) {
      meet();
      double host_us = 0;
      double const ms =
          timer_([&] { static_cast<void>(sm::redistribute(source, one.to)); }, host_us);
      if (i >= 0) {
        times.push_back(ms);
        host.push_back(host_us);
      }
    }
    std::vector<double> walls;
    for (int i = -2; i < 11; ++i) {
      meet();
      auto const start = Clock::now();
      static_cast<void>(sm::redistribute(source, one.to));
      typename Space::Stream{}.synchronize();
      if (i >= 0) {
        walls.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
      }
    }
    double const ms = worst(world_, median(times));
    double const host_us = worst(world_, median(host));
    double const wall = worst(world_, median(walls));
    auto const plan = sm::make_plan(from, to);
    auto const least = static_cast<std::size_t>(sm::cost_of(plan, sizeof(float)).least_received);
    double const limit = least == 0 ? 0 : copy_ms(least);
    if (world_.rank() == 0) {
      std::printf("{\"case\": \"%s\", \"side\": %ld, \"mib\": %.2f, \"ms\": %.5f, \"host_us\": "
                  "%.2f, \"wall_ms\": %.5f, "
                  "\"limit_ms\": %.5f, \"same_layout\": %s, \"wrong\": %ld}\n",
                  one.name, static_cast<long>(side), static_cast<double>(bytes) / (1 << 20), ms,
                  host_us, wall, limit, sm::same_parts(from, to) ? "true" : "false", wrong);
      std::fflush(stdout);
    }
    return wrong;
  }

  void meet() const {
    typename Space::Stream{}.synchronize();
    world_.barrier();
  }

  /// A plain copy of so many bytes from each rank to its neighbour, all at once: over the link if ranks see each other's
  /// memory, else within the own, which no exchange between processes can beat.
  double copy_ms(std::size_t bytes) {
    for (auto const& [known, ms] : copies_) {
      if (known == bytes) {
        return ms;
      }
    }
    sm::Buffer<Space> const source(bytes);
    sm::Buffer<Space> const target(bytes);
    Space::fill_zero(source.data(), bytes);
    Space::fill_zero(target.data(), bytes);
    auto const mine = reinterpret_cast<std::uintptr_t>(target.data());
    auto const all = sm::all_gather_value(world_, mine);
    auto const next = static_cast<std::size_t>(world_.rank() + 1) % all.size();
    void* const place =
        World::shared_address_space ? reinterpret_cast<void*>(all[next]) : target.data();
    std::vector<double> times;
    for (int i = -2; i < 9; ++i) {
      meet();
      double host_us = 0;
      double const ms = timer_(
          [&] {
            sm::index_t const count = static_cast<sm::index_t>(bytes);
            Space::copy({source.data(), place, sm::Shape{count}, sm::Shape{1}, sm::Shape{1}, 1});
          },
          host_us);
      if (i >= 0) {
        times.push_back(ms);
      }
    }
    meet();
    copies_.emplace_back(bytes, worst(world_, median(times)));
    return copies_.back().second;
  }

  World const& world_;
  sm::DeviceMesh<1, World> line_;
  sm::DeviceMesh<2, World> grid_;
  Timer timer_;
  std::vector<std::pair<std::size_t, double>> copies_;
};

/// Median microseconds in which one rank has a plan that is not in the cache.
void time_new_plans() {
  struct NewPlan {
    char const* name;
    sm::Shape mesh;
    sm::PlacementList from;
    sm::PlacementList to;
  };
  sm::Placement const r = sm::Replicate{};
  sm::Placement const p = sm::Partial<>{};
  sm::Placement const s0 = sm::Shard{0};
  sm::Placement const s1 = sm::Shard{1};
  std::vector<NewPlan> const plans = {
      {"64 ranks, S0,S1,R->R,S0,S1", {4, 4, 4}, {s0, s1, r}, {r, s0, s1}},
      {"64 ranks, P,S0,S1->S0,S0,R", {4, 4, 4}, {p, s0, s1}, {s0, s0, r}},
      {"64 ranks, S0,S0,S0->R,R,R", {4, 4, 4}, {s0, s0, s0}, {r, r, r}},
      {"16384 ranks, S0,S0->S0,S1", {2048, 8}, {s0, s0}, {s0, s1}},
      {"16384 ranks, R,S0,S0->R,S0,S1", {16, 128, 8}, {r, s0, s0}, {r, s0, s1}},
      {"16384 ranks, R,S0->R,R", {2048, 8}, {r, s0}, {r, r}}};
  for (NewPlan const& one : plans) {
    sm::Layout const from({16384, 16384}, one.mesh, one.from);
    sm::Layout const to({16384, 16384}, one.mesh, one.to);
    int const rank = static_cast<int>(sm::volume(one.mesh) / 2) + 5;
    std::vector<double> times;
    std::size_t peers = 0;
    for (int i = 0; i < 301; ++i) {
      sm::PlanCache cache;
      auto const start = Clock::now();
      auto const plan = cache.get(from, to, rank);
      times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
      peers = plan->steps[0].sends.size();
    }
    std::printf("{\"plan\": \"%s\", \"us\": %.2f, \"sends\": %zu}\n", one.name, median(times),
                peers);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string const engine = argc > 3 ? argv[1] : "";
  if (engine == "plans") {
    time_new_plans();
    return 0;
  }
  if (engine != "threads" && engine != "processes") {
    std::fprintf(stderr, "usage: redistribute threads|processes|plans RANKS SIDE...\n");
    return 2;
  }
  int const ranks = std::atoi(argv[2]);
  long wrong = 0;
  auto const body = [&](auto& world) {
    Bench<std::remove_cvref_t<decltype(world)>> bench(world);
    long mine = 0;
    for (int i = 3; i < argc; ++i) {
      mine += bench.run(std::atol(argv[i]));
    }
    if (world.rank() == 0) {
      wrong = mine;
    }
  };
  try {
#ifdef SHARDMESH_BENCH_CUDA
    if (engine == "threads") {
      sm::launch(sm::threads_on_devices{ranks}, body);
    } else {
      sm::launch(sm::nccl_environment{}, body);
    }
#else
    if (engine == "threads") {
      sm::launch(sm::threads{ranks}, body);
    } else {
      sm::launch(sm::environment{}, body);
    }
#endif
  } catch (std::exception const& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return wrong == 0 ? 0 : 1;
}
