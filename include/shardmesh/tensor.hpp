// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything in the room `tensor`.
#include <shardmesh/tensor/convert.hpp>
#include <shardmesh/tensor/dist_tensor.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/execute.hpp>
#include <shardmesh/tensor/fused_exchange.hpp>
#include <shardmesh/tensor/local_part.hpp>
#include <shardmesh/tensor/redistribute.hpp>
#include <shardmesh/tensor/root_exchange.hpp>
#include <shardmesh/tensor/sharded_tensor.hpp>
#include <shardmesh/tensor/tensor.hpp>
#include <shardmesh/tensor/transfer.hpp>
