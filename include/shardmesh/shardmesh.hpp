// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// The library with its embedded engine, threads. What needs more than the standard library and zlib
/// is included by name: processes under a launcher by <shardmesh/processes.hpp>, devices by
/// <shardmesh/cuda.hpp> and <shardmesh/nccl.hpp>, safetensors by
/// <shardmesh/checkpoint/load_any.hpp>.
#include <shardmesh/checkpoint.hpp>
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
