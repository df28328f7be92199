// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything that needs no CUDA, NCCL or MPI. Backends are included by name:
/// <shardmesh/cuda.hpp>, <shardmesh/nccl.hpp>; safetensors by <shardmesh/checkpoint/safetensors.hpp>.
#include <shardmesh/checkpoint.hpp>
#include <shardmesh/comm.hpp>
#include <shardmesh/core.hpp>
#include <shardmesh/layout.hpp>
#include <shardmesh/memory.hpp>
#include <shardmesh/mesh.hpp>
#include <shardmesh/optim.hpp>
#include <shardmesh/plan.hpp>
#include <shardmesh/state.hpp>
#include <shardmesh/tensor.hpp>
