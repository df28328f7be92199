// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything in the room `state`.
#include <shardmesh/state/any_tensor.hpp>
#include <shardmesh/state/checksum.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/state/options.hpp>
#include <shardmesh/state/policy.hpp>
#include <shardmesh/state/reflect.hpp>
#include <shardmesh/state/role.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/summary.hpp>
#include <shardmesh/state/transfer.hpp>
#include <shardmesh/state/visit.hpp>
