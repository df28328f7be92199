// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What is compiled once, in the translation unit that includes <shardmesh/src.hpp>, if SHARDMESH_SEPARATE_COMPILATION is
// defined: meshes, exchanges, states on the embedded engine. See docs/decisions/0014.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/plan/plan_cache.hpp>
#include <shardmesh/state/checksum.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/transfer.hpp>
#include <shardmesh/tensor/execute.hpp>
#include <shardmesh/tensor/fused_exchange.hpp>

#if defined(SHARDMESH_SEPARATE_COMPILATION)

namespace shardmesh {
inline namespace v0 {

SHARDMESH_INSTANTIATE DeviceMesh<1, ThreadsCommunicator> device_mesh(ThreadsCommunicator const&,
                                                                     index_t const (&)[1],
                                                                     std::vector<int> const&,
                                                                     std::vector<std::string>);
SHARDMESH_INSTANTIATE DeviceMesh<2, ThreadsCommunicator> device_mesh(ThreadsCommunicator const&,
                                                                     index_t const (&)[2],
                                                                     std::vector<int> const&,
                                                                     std::vector<std::string>);
SHARDMESH_INSTANTIATE DeviceMesh<3, ThreadsCommunicator> device_mesh(ThreadsCommunicator const&,
                                                                     index_t const (&)[3],
                                                                     std::vector<int> const&,
                                                                     std::vector<std::string>);
SHARDMESH_INSTANTIATE std::shared_ptr<RankPlan const> PlanCache::get(Holding const&,
                                                                     Holding const&,
                                                                     int);
SHARDMESH_INSTANTIATE StateDict offloaded(StateDict const&);
SHARDMESH_INSTANTIATE StateDict full_state_dict(StateDict const&);
SHARDMESH_INSTANTIATE void execute<HostMemory>(ThreadsCommunicator const&,
                                               std::span<ExchangeJob const>,
                                               Call const&,
                                               HostMemory::Stream);
SHARDMESH_INSTANTIATE GatherReport exchange_with_root<HostMemory>(ThreadsCommunicator const&,
                                                                  char const*,
                                                                  RootDirection,
                                                                  std::span<RootJob const>,
                                                                  std::size_t,
                                                                  HostMemory::Stream);
SHARDMESH_INSTANTIATE void FusedExchange::run(ThreadsCommunicator const&,
                                              std::vector<Tensor<float, HostMemory>>,
                                              std::vector<Tensor<float, HostMemory>> const&,
                                              HostMemory::Stream) const;
SHARDMESH_INSTANTIATE FusedExchange::FusedExchange(char const*,
                                                   std::string,
                                                   std::vector<Plan> const&,
                                                   int);
SHARDMESH_INSTANTIATE Tensor<float, HostMemory> detail::run(RankPlan const&,
                                                            ThreadsCommunicator const&,
                                                            Tensor<float, HostMemory> const&,
                                                            char const*,
                                                            HostMemory::Stream);
SHARDMESH_INSTANTIATE std::uint64_t checksum(ThreadsCommunicator const&, StateDict const&);
SHARDMESH_INSTANTIATE StateDict full_state_dict(ThreadsCommunicator const&,
                                                StateDict const&,
                                                GatherOptions,
                                                GatherReport*);
SHARDMESH_INSTANTIATE StateLoadReport load_state_dict(ThreadsCommunicator const&,
                                                      StateDict&,
                                                      StateDict const&,
                                                      StateOptions const&);
SHARDMESH_INSTANTIATE void transfer(ThreadsCommunicator const&,
                                    StateDict const&,
                                    StateDict&,
                                    TransferOptions const&);

}  // namespace v0
}  // namespace shardmesh

#endif
