// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Checks for tests that nvcc compiles, for which doctest's macros are not made.

#include <cstdio>

namespace test {

inline int checks = 0;
inline int failed_checks = 0;

/// One thread at a time calls this.
inline void check(bool right, char const* what) {
  ++checks;
  if (!right) {
    ++failed_checks;
    std::printf("FAILED: %s\n", what);
  }
}

/// Says how many there were. @returns the exit status of the program.
inline int status_of_checks() {
  std::printf("%d checks, %d failed\n", checks, failed_checks);
  return failed_checks > 0 ? 1 : 0;
}

}  // namespace test
