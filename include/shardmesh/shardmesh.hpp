// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// The library with its embedded engine, threads, for everything that happens in memory. What costs
/// more to compile, or needs more than the standard library, is included by name: files by
/// <shardmesh/checkpoint.hpp> (safetensors by <shardmesh/checkpoint/load_any.hpp>), processes under
/// a launcher by <shardmesh/processes.hpp>, other engines and devices by <shardmesh/mpi.hpp>,
/// <shardmesh/nccl.hpp> and <shardmesh/cuda.hpp>.
#include <shardmesh/comm.hpp>
#include <shardmesh/core.hpp>
#include <shardmesh/fsdp.hpp>
#include <shardmesh/layout.hpp>
#include <shardmesh/memory.hpp>
#include <shardmesh/mesh.hpp>
#include <shardmesh/optim.hpp>
#include <shardmesh/plan.hpp>
#include <shardmesh/state.hpp>
#include <shardmesh/tensor.hpp>

#if defined(SHARDMESH_SEPARATE_COMPILATION)
#include <shardmesh/fsdp/separate.hpp>
#include <shardmesh/state/separate.hpp>
#endif
