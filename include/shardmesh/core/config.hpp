// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

/// Version of the library, defined here and nowhere else (meson.build refuses to configure with another); the
/// ABI-relevant part is the inline namespace `v0`.
#define SHARDMESH_VERSION_MAJOR 0
#define SHARDMESH_VERSION_MINOR 1
#define SHARDMESH_VERSION_PATCH 0
#define SHARDMESH_VERSION_STRING "0.1.0"

/// Marks a function for host and device. Empty unless a CUDA compiler reads the header; never
/// changes the definition of a class.
#if defined(__CUDACC__)
#define SHARDMESH_HD __host__ __device__
#else
#define SHARDMESH_HD
#endif

/// Separate compilation (docs/decisions/0014): where a program defines SHARDMESH_SEPARATE_COMPILATION in all of its
/// translation units, one of them includes <shardmesh/src.hpp>, which has what the others then do not compile: the
/// bodies of functions declared SHARDMESH_INLINE (in the `..._bodies.hpp` of their header), and instances of templates
/// (in `separate.hpp` of a room). Otherwise such functions are inline, and their bodies included.
#if !defined(SHARDMESH_SEPARATE_COMPILATION)
#define SHARDMESH_INLINE inline
#define SHARDMESH_WITH_BODIES 1
#elif defined(SHARDMESH_SOURCE)
#define SHARDMESH_INLINE
#define SHARDMESH_INSTANTIATE template
#define SHARDMESH_WITH_BODIES 1
#else
#define SHARDMESH_INLINE
#define SHARDMESH_INSTANTIATE extern template
#define SHARDMESH_WITH_BODIES 0
#endif

/// Gives a class default visibility, so that an exception can be caught across shared objects.
#define SHARDMESH_EXPORT __attribute__((visibility("default")))
