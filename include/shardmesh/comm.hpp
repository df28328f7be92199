// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Communicators that need no CUDA, NCCL or MPI.
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/sockets.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>
