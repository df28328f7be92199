// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Ranks that are processes, with tensors in host memory: started by torchrun, mpirun or srun, or
/// forked here.
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/sockets.hpp>
#include <shardmesh/comm/spawn.hpp>
