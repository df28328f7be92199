// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies that every engine runs, for NCCL: each in a source of its own for each control channel,
// so that they compile side by side.

#include <functional>
#include <string>

#include <shardmesh/comm/nccl/communicator.hpp>

namespace test {

using RowReport = std::function<void(std::string const& row, std::string const& problem)>;

/// `run_rows` in device memory.
template <class Control>
void nccl_rows(shardmesh::NcclCommunicator<Control> const& world, RowReport const& report);

/// `run_training_rows` in device memory, where the number of ranks divides the batch.
template <class Control>
void nccl_training(shardmesh::NcclCommunicator<Control> const& world, RowReport const& report);

/// `b10_offload_equivalence` in device memory.
template <class Control>
void nccl_offload(shardmesh::NcclCommunicator<Control> const& world, RowReport const& report);

}  // namespace test
