// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Host memory whose copies take long enough for a test to look at what happens meanwhile.

#include <atomic>
#include <chrono>
#include <thread>

#include <shardmesh/memory/host.hpp>

namespace test {

struct HeldMemory : shardmesh::HostMemory {
  /// What one test watches; one test at a time uses it.
  struct Watch {
    std::atomic<bool> copying{false};    ///< a copy has begun
    std::atomic<bool> left{false};       ///< a rank that takes part has gone
    std::atomic<bool> too_early{false};  ///< before the copy was over
  };
  static Watch& watch() {
    static Watch shared;
    return shared;
  }

  static void copy(shardmesh::StridedCopy const& copy, Stream stream) {
    watch().copying = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    if (watch().left) {
      watch().too_early = true;
      return;  // the memory may be gone
    }
    HostMemory::copy(copy, stream);
  }
};

static_assert(shardmesh::MemorySpace<HeldMemory>);

/// Says when a rank leaves, before the memory that was there first is freed.
struct Leaves {
  Leaves() = default;
  Leaves(Leaves const&) = delete;
  Leaves& operator=(Leaves const&) = delete;
  ~Leaves() { HeldMemory::watch().left = true; }
};

/// Waits for the first copy of the others.
inline void wait_for_copies() {
  while (!HeldMemory::watch().copying) {
    std::this_thread::yield();
  }
}

inline void reset_watch() {
  HeldMemory::watch().copying = false;
  HeldMemory::watch().left = false;
  HeldMemory::watch().too_early = false;
}

}  // namespace test
