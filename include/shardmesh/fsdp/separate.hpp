// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// As state/separate.hpp, for sharded models of float in host memory and their optimizers.

#include <cstddef>
#include <memory>
#include <vector>

#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/fsdp/collect.hpp>
#include <shardmesh/fsdp/detail/parameter_slot.hpp>
#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/fsdp/sharding.hpp>
#include <shardmesh/fsdp/unit.hpp>
#include <shardmesh/fsdp/unit_schedule.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/optim/optimizer.hpp>
#include <shardmesh/optim/sgd.hpp>
#include <shardmesh/state/any_tensor.hpp>
#include <shardmesh/tensor/dist_tensor.hpp>
#include <shardmesh/tensor/tensor.hpp>

#if defined(SHARDMESH_SEPARATE_COMPILATION)

namespace shardmesh {
inline namespace v0 {
namespace detail {

template <std::size_t N>
using ThreadsSharding = MeshSharding<DeviceMesh<N, ThreadsCommunicator>>;
template <std::size_t N>
using ThreadsUnit = ShardUnit<ThreadsSharding<N>, float, HostMemory, Precision<float>>;
template <std::size_t N>
using ThreadsParameter = typename ThreadsUnit<N>::Parameter;

}  // namespace detail

SHARDMESH_INSTANTIATE AnyTensor::AnyTensor(Tensor<float, HostMemory> const&);

// For meshes of N dimensions.
#define SHARDMESH_INSTANTIATE_MODELS(N)                                                            \
  SHARDMESH_INSTANTIATE class DeviceMesh<N, ThreadsCommunicator>;                                  \
  SHARDMESH_INSTANTIATE class MeshSharding<DeviceMesh<N, ThreadsCommunicator>>;                    \
  SHARDMESH_INSTANTIATE class detail::ShardUnit<detail::ThreadsSharding<N>, float, HostMemory,     \
                                                Precision<float>>;                                 \
  SHARDMESH_INSTANTIATE void detail::take_from_first(                                              \
      detail::ThreadsSharding<N> const&, std::vector<detail::FoundParameter<float, HostMemory>>&,  \
      HostMemory::Stream);                                                                         \
  SHARDMESH_INSTANTIATE class detail::UnitSchedule<detail::ThreadsUnit<N>, HostMemory>;            \
  SHARDMESH_INSTANTIATE void detail::agree_on_parameters(                                          \
      detail::ThreadsSharding<N> const&,                                                           \
      std::vector<detail::FoundParameter<float, HostMemory>> const&);                              \
  SHARDMESH_INSTANTIATE std::unique_ptr<detail::ThreadsUnit<N>::Slot>                              \
  detail::cut_parameter<float>(detail::ThreadsSharding<N> const&,                                  \
                               detail::FoundParameter<float, HostMemory> const&,                   \
                               HostMemory::Stream);                                                \
  SHARDMESH_INSTANTIATE std::unique_ptr<detail::ThreadsUnit<N>::Slot>                              \
  detail::parameter_outside<float>(detail::ThreadsSharding<N> const&,                              \
                                   detail::FoundParameter<float, HostMemory> const&);              \
  SHARDMESH_INSTANTIATE std::vector<detail::ThreadsParameter<N>> detail::reduce_units(             \
      std::vector<std::unique_ptr<detail::ThreadsUnit<N>>> const&,                                 \
      std::vector<detail::TrainedParameter> const&, std::vector<Tensor<float, HostMemory>> const&, \
      HostMemory::Stream);                                                                         \
  SHARDMESH_INSTANTIATE class DistTensor<float, DeviceMesh<N, ThreadsCommunicator>,                \
                                         detail::ThreadsSharding<N>::placements_type, HostMemory>; \
  SHARDMESH_INSTANTIATE AnyTensor::AnyTensor(detail::ThreadsParameter<N> const&);                  \
  SHARDMESH_INSTANTIATE class Optimizer<detail::ThreadsParameter<N>, AdamOptions>;                 \
  SHARDMESH_INSTANTIATE class Optimizer<detail::ThreadsParameter<N>, AdamWOptions>;                \
  SHARDMESH_INSTANTIATE class Optimizer<detail::ThreadsParameter<N>, SgdOptions>
SHARDMESH_INSTANTIATE_MODELS(1);
SHARDMESH_INSTANTIATE_MODELS(2);
#undef SHARDMESH_INSTANTIATE_MODELS

}  // namespace v0
}  // namespace shardmesh

#endif
