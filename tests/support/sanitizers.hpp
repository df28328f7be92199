// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Which sanitizers the tests are built with, in the words of g++ and of clang.
#pragma once

#if defined(__has_feature)
#define SHARDMESH_TEST_FEATURE(name) __has_feature(name)
#else
#define SHARDMESH_TEST_FEATURE(name) 0
#endif

// Forked children of a process that ThreadSanitizer watches do not work once it has had threads.
#if defined(__SANITIZE_THREAD__) || SHARDMESH_TEST_FEATURE(thread_sanitizer)
#define SHARDMESH_TEST_MAY_FORK 0
#else
#define SHARDMESH_TEST_MAY_FORK 1
#endif

namespace test {

/// Whether sanitizers make everything many times slower: exhaustive cases, which run in full in the
/// ordinary build, then take samples.
#if defined(__SANITIZE_ADDRESS__) || SHARDMESH_TEST_FEATURE(address_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = !SHARDMESH_TEST_MAY_FORK;
#endif

}  // namespace test
