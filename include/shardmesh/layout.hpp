// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything in the room `layout`.
#include <shardmesh/layout/box.hpp>
#include <shardmesh/layout/chunk.hpp>
#include <shardmesh/layout/layout.hpp>
#include <shardmesh/layout/legality.hpp>
#include <shardmesh/layout/picture.hpp>
#include <shardmesh/layout/placement.hpp>
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/layout/same_parts.hpp>
#include <shardmesh/layout/shard_order.hpp>
