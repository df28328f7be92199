// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Counts what makes the host wait for a device, and what allocates. The linker puts counting
// functions in front of those of the CUDA runtime (--wrap, see tests/gpu/meson.build), so nothing of
// the library under test knows of it.

#include <atomic>
#include <cstdint>
#include <string>

#include <cuda_runtime_api.h>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/memory/cuda/device_pool.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/redistribute.hpp>

namespace test {

struct Counts {
  std::atomic<long> waits = 0;        ///< the host waits for a stream, an event or a device
  std::atomic<long> allocations = 0;  ///< of device or page-locked memory, outside the pool
};
extern Counts counts;

/// Bytes that the pools of the current device have taken from the driver.
inline std::uint64_t pool_bytes() {
  int device = 0;
  shardmesh::cuda::check(cudaGetDevice(&device), "cudaGetDevice");
  cudaMemPool_t pool = nullptr;
  shardmesh::cuda::check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
  std::uint64_t bytes = 0;
  shardmesh::cuda::check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &bytes),
                         "cudaMemPoolGetAttribute");
  return bytes + shardmesh::cuda::device_pool().obtained();
}

/// Redistributions wait for no device and allocate nothing outside the pool, and the pool stops
/// growing. @returns what is wrong.
template <class Comm>
std::string no_hidden_waits(Comm const& world) {
  namespace sm = shardmesh;
  using Space = sm::CudaMemory;
  auto const mesh = sm::device_mesh<1>(world, {world.size()});
  sm::Shape const shape{61 * world.size(), 67};
  auto const make = [&](auto placements) {
    sm::PlacementList const list = sm::to_list(placements);
    sm::Layout const layout(shape, mesh.shape(), list);
    return sm::DistTensor<float, std::remove_const_t<decltype(mesh)>, sm::PlacementList, Space>(
        mesh, layout, sm::Tensor<float, Space>::zeros(layout.local_shape(mesh.coordinate())));
  };
  auto const rows = make(sm::placements<sm::Shard<0>>);
  auto const terms = make(sm::placements<sm::Partial<>>);
  sm::PlacementList const columns{sm::Shard{1}};
  sm::PlacementList const whole{sm::Replicate{}};
  bool steady = false;
  long waits = 0;
  long allocations = 0;
  for (int window = 0; window < 20 && !steady; ++window) {
    world.barrier();
    auto const before = pool_bytes();
    long const waits_before = counts.waits;
    long const allocations_before = counts.allocations;
    world.barrier();
    for (int round = 0; round < 10; ++round) {
      static_cast<void>(sm::redistribute(rows, columns));
      static_cast<void>(sm::redistribute(rows, whole));
      static_cast<void>(sm::redistribute(terms, columns));
    }
    world.barrier();
    waits = counts.waits - waits_before;
    allocations = counts.allocations - allocations_before;
    bool const grew = pool_bytes() != before;
    world.barrier();
    if (waits != 0) {
      return "the host waited for a device " + std::to_string(waits) +
             " times in 30 redistributions";
    }
    int any = 0;
    for (int one : sm::all_gather_value(world, grew || allocations != 0 ? 1 : 0)) {
      any += one;
    }
    steady = any == 0;
    sm::CudaStream{}.synchronize();
  }
  return steady ? ""
                : "600 redistributions, and still memory is allocated (" +
                      std::to_string(allocations) + " times outside the pool)";
}

}  // namespace test
