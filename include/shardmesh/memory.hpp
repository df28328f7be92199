// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything in the room `memory` that needs no CUDA.
#include <shardmesh/memory/buffer.hpp>
#include <shardmesh/memory/convert.hpp>
#include <shardmesh/memory/copy.hpp>
#include <shardmesh/memory/float_convert.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/host_copy.hpp>
#include <shardmesh/memory/host_reduce.hpp>
#include <shardmesh/memory/reduce_arithmetic.hpp>
#include <shardmesh/memory/resource.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/memory/strided_copy.hpp>
