// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Replaces the program's `operator new`: include it in one source of a program. Counts what is asked of the
// allocator, which no other load of the machine changes.

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include <malloc.h>

namespace test {

struct CountedMemory {
  static std::atomic<std::size_t>& held() {
    static std::atomic<std::size_t> bytes{0};
    return bytes;
  }
  static std::atomic<std::size_t>& peak() {
    static std::atomic<std::size_t> bytes{0};
    return bytes;
  }
  static std::atomic<std::size_t>& calls() {
    static std::atomic<std::size_t> count{0};
    return count;
  }
  /// How many calls from now on succeed before one fails; -1 for all.
  static std::atomic<std::ptrdiff_t>& left() {
    static std::atomic<std::ptrdiff_t> count{-1};
    return count;
  }
};

/// What a part of a program takes.
struct Cost {
  std::size_t bytes = 0;  ///< most that was held at a time, beyond what was held before
  std::size_t calls = 0;  ///< of the allocator
};

template <class F>
Cost cost_of(F&& part) {
  std::size_t const before = CountedMemory::held();
  std::size_t const calls = CountedMemory::calls();
  CountedMemory::peak() = before;
  part();
  return {CountedMemory::peak() - before, CountedMemory::calls() - calls};
}

/// Runs a part of a program, of which one call of the allocator fails: the one after so many.
/// @returns whether it came to that.
template <class F>
bool with_failing_allocation(std::ptrdiff_t number, F&& part) {
  struct Switch {
    explicit Switch(std::ptrdiff_t calls) { CountedMemory::left() = calls; }
    Switch(Switch const&) = delete;
    Switch& operator=(Switch const&) = delete;
    ~Switch() { CountedMemory::left() = -1; }
  };
  Switch const failing(number);
  part();
  return CountedMemory::left() < 0;  // counted down
}

inline void* counted(std::size_t size, std::size_t alignment) {
  if (CountedMemory::left() >= 0 && CountedMemory::left()-- == 0) {
    return nullptr;
  }
  void* const memory =
      alignment > alignof(std::max_align_t)
          ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
          : std::malloc(size > 0 ? size : 1);
  if (memory != nullptr) {
    std::size_t const now = CountedMemory::held() += malloc_usable_size(memory);
    std::size_t peak = CountedMemory::peak();
    while (now > peak && !CountedMemory::peak().compare_exchange_weak(peak, now)) {
    }
    ++CountedMemory::calls();
  }
  return memory;
}

inline void uncounted(void* memory) noexcept {
  if (memory != nullptr) {
    CountedMemory::held() -= malloc_usable_size(memory);
    std::free(memory);
  }
}

}  // namespace test

// The forms that have no place here call one of these.
void* operator new(std::size_t size) {
  if (void* const memory = test::counted(size, 0)) {
    return memory;
  }
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  if (void* const memory = test::counted(size, static_cast<std::size_t>(alignment))) {
    return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  test::uncounted(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  test::uncounted(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  test::uncounted(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  test::uncounted(memory);
}
