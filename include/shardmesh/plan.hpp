// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything in the room `plan`.
#include <shardmesh/plan/cost.hpp>
#include <shardmesh/plan/plan.hpp>
#include <shardmesh/plan/plan_cache.hpp>
#include <shardmesh/plan/tile.hpp>
#include <shardmesh/plan/transfer.hpp>
