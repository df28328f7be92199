// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// As state/separate.hpp, for sharded models of float in host memory and their optimizers.

#include <cstddef>

#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/fsdp/sharding.hpp>
#include <shardmesh/fsdp/unit.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/optim/optimizer.hpp>
#include <shardmesh/optim/sgd.hpp>

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
SHARDMESH_INSTANTIATE class DistTensor<float,
                                       DeviceMesh<1, ThreadsCommunicator>,
                                       detail::ThreadsSharding<1>::placements_type,
                                       HostMemory>;
SHARDMESH_INSTANTIATE class DistTensor<float,
                                       DeviceMesh<2, ThreadsCommunicator>,
                                       detail::ThreadsSharding<2>::placements_type,
                                       HostMemory>;
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
