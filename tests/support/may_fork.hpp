// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Forked children of a process that ThreadSanitizer watches do not work once it has had threads.
#if defined(__SANITIZE_THREAD__)
#define SHARDMESH_TEST_MAY_FORK 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHARDMESH_TEST_MAY_FORK 0
#else
#define SHARDMESH_TEST_MAY_FORK 1
#endif
#else
#define SHARDMESH_TEST_MAY_FORK 1
#endif
