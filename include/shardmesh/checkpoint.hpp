// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Checkpoints: PyTorch's directories, read and written. Safetensors have headers of their own, since
// they need nlohmann-json: <shardmesh/checkpoint/safetensors.hpp> and load_any.hpp.
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_from.hpp>
#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/checkpoint/load_plan.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/checkpoint/stored.hpp>

#if defined(SHARDMESH_SEPARATE_COMPILATION)
#include <shardmesh/checkpoint/separate.hpp>
#endif
