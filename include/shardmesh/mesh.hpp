// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Everything in the room `mesh`.
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/mesh/mesh_description.hpp>
