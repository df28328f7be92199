// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Processes of one host that write into each other's device memory.

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include <cuda_runtime_api.h>

#include <shardmesh/comm/nccl/link.hpp>
#include <shardmesh/comm/nccl/peer_push.hpp>
#include <shardmesh/comm/nccl/push_probe.hpp>
#include <shardmesh/comm/nccl/stream_values.hpp>
#include <shardmesh/memory/cuda/device_pool.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/redistribute.hpp>

namespace test {

/// What element (row, column) is in the given round.
inline float pushed_value(shardmesh::index_t row, shardmesh::index_t column, int round) {
  return static_cast<float>((row * 131 + column * 7 + round * 1009) % 65521);
}

/// Rows become columns on streams that take turns, several rounds under way at once; in every third round a rank's
/// result lies in memory that no other process can open, so that messages go there.
/// @returns what is wrong.
template <class Comm>
std::string pushes(Comm const& world) {
  namespace sm = shardmesh;
  using Space = sm::CudaMemory;
  if (world.size() > 1 && world.template peer_push<Space>() == nullptr) {
    return "no rank reaches another's memory";
  }
  constexpr int rounds = 12;
  auto const n = static_cast<sm::index_t>(world.size());
  sm::Shape const shape{64 * n, 96 * n};
  auto const mesh = sm::device_mesh<1>(world, {world.size()});
  sm::PlacementList const rows{sm::Shard{0}};
  sm::PlacementList const columns{sm::Shard{1}};
  using Dist = sm::DistTensor<float, std::remove_const_t<decltype(mesh)>, sm::PlacementList, Space>;
  sm::Layout const from(shape, mesh.shape(), rows);
  sm::Layout const to(shape, mesh.shape(), columns);
  sm::Shape const local = from.local_shape(mesh.coordinate());
  sm::Shape const got = to.local_shape(mesh.coordinate());
  auto const me = static_cast<sm::index_t>(world.rank());

  sm::CudaOwnedStream const streams[2] = {};
  std::vector<Dist> results;
  for (int round = 0; round < rounds; ++round) {
    sm::CudaStream const stream = streams[round % 2].get();
    sm::Tensor<float> host(local);
    for (sm::index_t i = 0; i < local[0]; ++i) {
      for (sm::index_t j = 0; j < local[1]; ++j) {
        host.data()[i * local[1] + j] = pushed_value(me * local[0] + i, j, round);
      }
    }
    Dist const source(mesh, from, host.template clone<Space>(stream));
    if (round % 3 == 2 && world.rank() == (round / 3) % world.size()) {
      void* memory = nullptr;
      auto const bytes = static_cast<std::size_t>(got[0] * got[1]) * sizeof(float);
      sm::cuda::check(cudaMallocAsync(&memory, bytes, stream.handle), "cudaMallocAsync");
      std::shared_ptr<float> const owner(static_cast<float*>(memory),
                                         [](float* pointer) { cudaFree(pointer); });
      results.emplace_back(mesh, to, sm::Tensor<float, Space>::view(got, owner));
    } else {
      results.emplace_back(mesh, to, sm::Tensor<float, Space>(got, stream));
    }
    sm::redistribute_into(source, results.back(), stream);
  }
  std::string wrong;
  for (int round = 0; round < rounds; ++round) {
    streams[round % 2].get().synchronize();
    auto const host = sm::to_host(results[static_cast<std::size_t>(round)].to_local());
    for (sm::index_t i = 0; i < got[0] && wrong.empty(); ++i) {
      for (sm::index_t j = 0; j < got[1] && wrong.empty(); ++j) {
        float const is = host.data()[i * got[1] + j];
        if (is != pushed_value(i, me * got[1] + j, round)) {
          wrong = "round " + std::to_string(round) + ", element (" + std::to_string(i) + ", " +
                  std::to_string(me * got[1] + j) + ") is " + std::to_string(is);
        }
      }
    }
  }
  return wrong;
}

/// One exchange that is pushed.
template <class Comm, class Mesh>
void push_once(Comm const&, Mesh const& mesh) {
  namespace sm = shardmesh;
  using Space = sm::CudaMemory;
  sm::PlacementList const rows{sm::Shard{0}};
  sm::Layout const layout(sm::Shape{1024, 1024}, mesh.shape(), rows);
  sm::DistTensor<float, Mesh, sm::PlacementList, Space> const source(
      mesh, layout, sm::Tensor<float, Space>::zeros(layout.local_shape(mesh.coordinate())));
  static_cast<void>(sm::full_tensor(source));
}

}  // namespace test
