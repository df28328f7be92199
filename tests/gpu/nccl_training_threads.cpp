// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>

#include "../../examples/support/dense_math_cuda.hpp"
#include "../support/training_rows.hpp"
#include "nccl_rows.hpp"

template <class Control>
void test::nccl_training(shardmesh::NcclCommunicator<Control> const& world,
                         RowReport const& report) {
  if (batch_rows % world.size() == 0) {
    run_training_rows<shardmesh::CudaMemory>(world, report);
  }
}

template void test::nccl_training(
    shardmesh::NcclCommunicator<shardmesh::ThreadsCommunicator> const&, RowReport const&);
