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

SHARDMESH_INSTANTIATE class DeviceMesh<1, ThreadsCommunicator>;
SHARDMESH_INSTANTIATE class DeviceMesh<2, ThreadsCommunicator>;
SHARDMESH_INSTANTIATE class MeshSharding<DeviceMesh<1, ThreadsCommunicator>>;
SHARDMESH_INSTANTIATE class MeshSharding<DeviceMesh<2, ThreadsCommunicator>>;
SHARDMESH_INSTANTIATE class detail::
    ShardUnit<detail::ThreadsSharding<1>, float, HostMemory, Precision<float>>;
SHARDMESH_INSTANTIATE class detail::
    ShardUnit<detail::ThreadsSharding<2>, float, HostMemory, Precision<float>>;
SHARDMESH_INSTANTIATE void detail::take_from_first(
    detail::ThreadsSharding<1> const&,
    std::vector<detail::FoundParameter<float, HostMemory>>&,
    HostMemory::Stream);
SHARDMESH_INSTANTIATE void detail::take_from_first(
    detail::ThreadsSharding<2> const&,
    std::vector<detail::FoundParameter<float, HostMemory>>&,
    HostMemory::Stream);
SHARDMESH_INSTANTIATE class detail::UnitSchedule<detail::ThreadsUnit<1>, HostMemory>;
SHARDMESH_INSTANTIATE void detail::agree_on_parameters(
    detail::ThreadsSharding<1> const&,
    std::vector<detail::FoundParameter<float, HostMemory>> const&);
SHARDMESH_INSTANTIATE std::unique_ptr<detail::ThreadsUnit<1>::Slot> detail::cut_parameter<float>(
    detail::ThreadsSharding<1> const&,
    detail::FoundParameter<float, HostMemory> const&,
    HostMemory::Stream);
SHARDMESH_INSTANTIATE std::unique_ptr<detail::ThreadsUnit<1>::Slot>
detail::parameter_outside<float>(detail::ThreadsSharding<1> const&,
                                 detail::FoundParameter<float, HostMemory> const&);
SHARDMESH_INSTANTIATE std::vector<detail::ThreadsParameter<1>> detail::reduce_units(
    std::vector<std::unique_ptr<detail::ThreadsUnit<1>>> const&,
    std::vector<detail::TrainedParameter> const&,
    std::vector<Tensor<float, HostMemory>> const&,
    HostMemory::Stream);
SHARDMESH_INSTANTIATE class detail::UnitSchedule<detail::ThreadsUnit<2>, HostMemory>;
SHARDMESH_INSTANTIATE void detail::agree_on_parameters(
    detail::ThreadsSharding<2> const&,
    std::vector<detail::FoundParameter<float, HostMemory>> const&);
SHARDMESH_INSTANTIATE std::unique_ptr<detail::ThreadsUnit<2>::Slot> detail::cut_parameter<float>(
    detail::ThreadsSharding<2> const&,
    detail::FoundParameter<float, HostMemory> const&,
    HostMemory::Stream);
SHARDMESH_INSTANTIATE std::unique_ptr<detail::ThreadsUnit<2>::Slot>
detail::parameter_outside<float>(detail::ThreadsSharding<2> const&,
                                 detail::FoundParameter<float, HostMemory> const&);
SHARDMESH_INSTANTIATE std::vector<detail::ThreadsParameter<2>> detail::reduce_units(
    std::vector<std::unique_ptr<detail::ThreadsUnit<2>>> const&,
    std::vector<detail::TrainedParameter> const&,
    std::vector<Tensor<float, HostMemory>> const&,
    HostMemory::Stream);
SHARDMESH_INSTANTIATE class DistTensor<float,
                                       DeviceMesh<1, ThreadsCommunicator>,
                                       detail::ThreadsSharding<1>::placements_type,
                                       HostMemory>;
SHARDMESH_INSTANTIATE class DistTensor<float,
                                       DeviceMesh<2, ThreadsCommunicator>,
                                       detail::ThreadsSharding<2>::placements_type,
                                       HostMemory>;
SHARDMESH_INSTANTIATE AnyTensor::AnyTensor(Tensor<float, HostMemory> const&);
SHARDMESH_INSTANTIATE AnyTensor::AnyTensor(detail::ThreadsParameter<1> const&);
SHARDMESH_INSTANTIATE AnyTensor::AnyTensor(detail::ThreadsParameter<2> const&);
SHARDMESH_INSTANTIATE class Optimizer<detail::ThreadsParameter<1>, AdamOptions>;
SHARDMESH_INSTANTIATE class Optimizer<detail::ThreadsParameter<2>, AdamOptions>;
SHARDMESH_INSTANTIATE class Optimizer<detail::ThreadsParameter<1>, AdamWOptions>;
SHARDMESH_INSTANTIATE class Optimizer<detail::ThreadsParameter<2>, AdamWOptions>;
SHARDMESH_INSTANTIATE class Optimizer<detail::ThreadsParameter<1>, SgdOptions>;
SHARDMESH_INSTANTIATE class Optimizer<detail::ThreadsParameter<2>, SgdOptions>;

}  // namespace v0
}  // namespace shardmesh

#endif
