// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>

#include "../support/behaviours.hpp"
#include "nccl_rows.hpp"

template <class Control>
void test::nccl_rows(shardmesh::NcclCommunicator<Control> const& world, RowReport const& report) {
  run_rows<shardmesh::CudaMemory>(world, report);
}

template void test::nccl_rows(shardmesh::NcclCommunicator<shardmesh::ThreadsCommunicator> const&,
                              RowReport const&);
