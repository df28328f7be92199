// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Calls f(i, own) for 0 <= i < count, each once, on the calling thread and up to `threads` - 1 others, in no order; `own` is
/// one `Own` for each thread. Once a call throws, no further one starts.
/// @throws what the call of the lowest number threw, once all have ended.
template <class Own, class F>
void on_threads(std::size_t count, std::size_t threads, F const& f) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::size_t failed = count;
  std::exception_ptr error;
  auto const work = [&] {
    Own own{};
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        f(i, own);
      } catch (...) {
        std::lock_guard const lock(mutex);
        if (i < failed) {
          failed = i;
          error = std::current_exception();
        }
        next = count;
      }
    }
  };
  {
    std::vector<std::jthread> others;
    std::size_t const wanted = std::min(threads, count);
    others.reserve(wanted);
    for (std::size_t i = 1; i < wanted; ++i) {
      try {
        others.emplace_back(work);
      } catch (std::system_error const&) {
        break;  // fewer do as well
      }
    }
    work();
  }
  if (error) {
    std::rethrow_exception(error);
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
