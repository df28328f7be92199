// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <chrono>
#include <source_location>
#include <string>
#include <thread>

#include <mpi.h>

#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Throws if a call of MPI failed.
/// @throws CommError with MPI's own words.
inline void mpi_check(int status,
                      char const* call,
                      std::source_location where = std::source_location::current()) {
  if (status == MPI_SUCCESS) {
    return;
  }
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw CommError(std::string("shardmesh: ") + call + " failed: " + text, where);
}

/// Between two looks at something that has not happened yet: ranks share cores, so busy waiting is
/// for short waits only.
class MpiPause {
 public:
  void operator()() {
    if (++looks_ < 200) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(std::min(looks_ / 10, 500)));
    }
  }

 private:
  int looks_ = 0;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
