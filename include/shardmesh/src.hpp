// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// For one translation unit of a program that defines SHARDMESH_SEPARATE_COMPILATION; nothing of the library may be
// included before it.
#if defined(SHARDMESH_VERSION_STRING)
#error "shardmesh/src.hpp must be the first header of the library in its translation unit"
#endif
#define SHARDMESH_SOURCE
#if !defined(SHARDMESH_SEPARATE_COMPILATION)
#define SHARDMESH_SEPARATE_COMPILATION
#endif
#include <shardmesh/checkpoint.hpp>
#include <shardmesh/shardmesh.hpp>
