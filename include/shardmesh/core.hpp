// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything in the room `core`.
#include <shardmesh/core/complex.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/counters.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/float_types.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/inline_vector.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/reduce_op.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/core/value.hpp>
