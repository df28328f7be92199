// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// A model in the memory of a device that streams reach late.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/state_dict.hpp>

#include "queued_device.hpp"

namespace test {

inline shardmesh::Shape const late_shape{8, 6};

/// A tensor in device memory, whole or in parts, whose elements a stream sets late.
template <class Placements>
struct LateModel {
  using Mesh = decltype(shardmesh::device_mesh<2>(
      std::declval<shardmesh::ThreadsCommunicator const&>(), {2, 2}));
  using Weight = shardmesh::DistTensor<float, Mesh, Placements, QueuedDevice>;
  Weight weight;
  shardmesh::Tensor<float, QueuedDevice> bias;

  LateModel(Mesh const& mesh, Placements const& placements, QueuedStream stream)
      : weight(mesh,
               shardmesh::Layout(late_shape, mesh.shape(), shardmesh::to_list(placements)),
               shardmesh::Tensor<float, QueuedDevice>(
                   shardmesh::Layout(late_shape, mesh.shape(), shardmesh::to_list(placements))
                       .local_shape(mesh.coordinate()),
                   stream)),
        bias(shardmesh::Shape{5}, stream) {}

  template <class V>
  void visit(V& v) {
    v("weight", weight);
    v("bias", bias);
  }

  /// Every element becomes `value`, when the stream comes to it.
  void set(float value, QueuedStream stream) const {
    for (auto const* const one : {&weight.to_local(), &bias}) {
      float* const data = one->data();
      QueuedDevice::for_each_index(
          one->size(), [data, value](shardmesh::index_t i) { data[i] = value; }, stream);
    }
  }
  /// How many elements are not `value`, at the point of the stream that it has been given up to now.
  [[nodiscard]] long wrong(float value, QueuedStream stream) const {
    long count = 0;
    for (auto const* const one : {&weight.to_local(), &bias}) {
      auto const copy = one->template clone<shardmesh::HostMemory>(stream);
      stream.synchronize();
      count += std::count_if(copy.span().begin(), copy.span().end(),
                             [value](float x) { return x != value; });
    }
    return count;
  }
};

/// Elements of a state dict in host memory that are not `value`.
inline long wrong_on_host(shardmesh::StateDict const& dict, float value) {
  long count = 0;
  for (shardmesh::StateEntry const& entry : dict) {
    std::vector<std::byte> const bytes = entry.tensor().local_bytes();
    for (std::size_t at = 0; at < bytes.size(); at += sizeof(float)) {
      float one = 0;
      std::memcpy(&one, bytes.data() + at, sizeof(one));
      count += one == value ? 0 : 1;
    }
  }
  return count;
}

}  // namespace test
