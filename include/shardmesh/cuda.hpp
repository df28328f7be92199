// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything that needs the CUDA runtime; compiles with a plain C++ compiler. The kernels are in
/// <shardmesh/memory/cuda/kernels.cuh>.
#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/memory/cuda/device.hpp>
#include <shardmesh/memory/cuda/kernels.hpp>
#include <shardmesh/memory/cuda/pinned_memory.hpp>
#include <shardmesh/memory/cuda/stream.hpp>
