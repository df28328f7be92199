// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything that needs NCCL.
#include <shardmesh/comm/nccl/communicator.hpp>
#include <shardmesh/comm/nccl/handle.hpp>
#include <shardmesh/comm/nccl/launch.hpp>
