// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/sockets.hpp>

#include "../support/offload_cases.hpp"
#include "nccl_rows.hpp"

template <class Control>
void test::nccl_offload(shardmesh::NcclCommunicator<Control> const& world,
                        RowReport const& report) {
  report("B10 offload equivalence, 100 random tensors",
         b10_offload_equivalence<shardmesh::CudaMemory>(world, 10, 100));
}

template void test::nccl_offload(shardmesh::NcclCommunicator<shardmesh::SocketCommunicator> const&,
                                 RowReport const&);
