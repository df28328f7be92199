// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// The communicator concept and the engine `threads`; the others are included by name.
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/comm/working.hpp>
