// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What a long run must not use up: memory, descriptors, threads.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include <shardmesh/memory/host_pool.hpp>

#include "../support/sanitizers.hpp"

#if defined(__SANITIZE_ADDRESS__) || SHARDMESH_TEST_FEATURE(address_sanitizer)
#include <sanitizer/allocator_interface.h>
#else
#include <malloc.h>
#endif

namespace soak {

struct Usage {
  std::size_t heap = 0;      ///< bytes that were allocated and not freed
  std::size_t resident = 0;  ///< bytes
  std::size_t pool = 0;      ///< bytes of the library's own pool that were not given back
  std::size_t descriptors = 0;
  std::size_t threads = 0;
};

inline std::size_t entries_of(char const* directory) {
  std::filesystem::directory_iterator const all(directory);
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

inline Usage usage() {
  Usage now;
#if defined(__SANITIZE_ADDRESS__) || SHARDMESH_TEST_FEATURE(address_sanitizer)
  now.heap = __sanitizer_get_current_allocated_bytes();
#else
  now.heap = ::mallinfo2().uordblks;
#endif
  std::ifstream pages("/proc/self/statm");
  std::size_t all = 0;
  pages >> all >> now.resident;
  now.resident *= static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  now.pool = shardmesh::host_pool().in_use();
  now.descriptors = entries_of("/proc/self/fd");
  now.threads = entries_of("/proc/self/task");
  return now;
}

/// Compares what is used after each round with what was used before. The heap rises in the first quarter of a run, until
/// there are as many checkpoints, and have been as many threads at once, as there will be; then what the soak remembers of the
/// checkpoints goes up and down, so the least of the second quarter is compared with that of the last.
class Watch {
 public:
  explicit Watch(std::size_t warm_up) : warm_up_(warm_up) { rounds_.reserve(std::size_t{1} << 18); }

  /// @returns what has grown; empty if nothing has.
  [[nodiscard]] std::string after_round(Usage const& now) {
    rounds_.push_back(now);
    if (rounds_.size() < warm_up_) {
      return {};
    }
    if (rounds_.size() == warm_up_) {
      first_ = now;
      first_.threads = 1;  // all that were started have ended
      return {};
    }
    if (now.pool != 0) {
      return words("bytes of the pool", 0, now.pool);
    }
    if (now.descriptors != first_.descriptors) {
      return words("descriptors", first_.descriptors, now.descriptors);
    }
    if (std::size_t const threads = settled_threads(); threads != first_.threads) {
      return words("threads", first_.threads, threads);
    }
    return {};
  }

  /// @returns what has grown over all rounds.
  [[nodiscard]] std::string at_end() const {
    std::size_t const window = rounds_.size() / 4;
    std::size_t const first = std::max(warm_up_, window);
    if (first + 2 * window > rounds_.size()) {
      return {};
    }
    auto const least = [&](std::size_t from, std::size_t Usage::* what) {
      std::size_t low = ~std::size_t{0};
      for (std::size_t i = from; i < from + window; ++i) {
        low = std::min(low, rounds_[i].*what);
      }
      return low;
    };
    std::size_t const last = rounds_.size() - window;
    std::size_t const heap_before = least(first, &Usage::heap);
    std::size_t const heap_after = least(last, &Usage::heap);
    std::printf("soak: heap at least %zu bytes in the second quarter, %zu in the last; resident "
                "%zu, %zu MiB\n",
                heap_before, heap_after, least(first, &Usage::resident) >> 20,
                least(last, &Usage::resident) >> 20);
    if (heap_after > heap_before + heap_room) {
      return words("bytes of heap", heap_before, heap_after);
    }
    if (least(last, &Usage::resident) > least(first, &Usage::resident) + resident_room) {
      return words("resident bytes", least(first, &Usage::resident), least(last, &Usage::resident));
    }
    return {};
  }

 private:
  /// What a soak remembers of its checkpoints: six, of up to six tensors of less than 200 bytes.
  static constexpr std::size_t heap_room = std::size_t{8} << 10;
  static constexpr std::size_t resident_room = std::size_t{64} << 20;  // what the sanitizer keeps

  /// The kernel lists a thread for a moment after it was joined.
  [[nodiscard]] std::size_t settled_threads() const {
    std::size_t threads = usage().threads;
    for (int i = 0; i < 5000 && threads != first_.threads; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      threads = usage().threads;
    }
    return threads;
  }

  [[nodiscard]] static std::string words(char const* what, std::size_t before, std::size_t now) {
    return std::string(what) + ": " + std::to_string(before) + " before, " + std::to_string(now) +
           " now";
  }

  std::size_t warm_up_;
  std::vector<Usage> rounds_;
  Usage first_;
};

}  // namespace soak
