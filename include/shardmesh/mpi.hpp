// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything that needs MPI.
#include <shardmesh/comm/mpi/communicator.hpp>
#include <shardmesh/comm/mpi/launch.hpp>
