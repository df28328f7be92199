// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <shardmesh/memory/page_advice.hpp>

namespace shardmesh {
inline namespace v0 {

/// Fresh host memory, ready to be written at full speed: in pages of 2 MiB where the kernel grants
/// them, and touched once by several threads. (Touching pages of 4 KiB by the thread that fills them
/// is what bounds copies into fresh memory, not the link that they come from.)
struct HugePages {
  static constexpr std::size_t page_bytes = huge_page_bytes;

  /// Bytes that are mapped for `bytes`.
  [[nodiscard]] static constexpr std::size_t mapped(std::size_t bytes) noexcept {
    return (bytes + page_bytes - 1) / page_bytes * page_bytes;
  }

  /// Zeros, aligned to 2 MiB, touched.
  /// @tparam Thread  `std::jthread`; a template, so that threads are compiled only where pages are obtained.
  /// @throws std::bad_alloc
  template <class Thread = std::jthread>
  [[nodiscard]] static void* obtain(std::size_t bytes) {
    void* const pages = map(bytes);
    touch<Thread>(static_cast<std::byte*>(pages), mapped(bytes));
    return pages;
  }

  /// The same, but not touched: for memory that several threads fill at once, or that is not filled to its end.
  /// @throws std::bad_alloc
  [[nodiscard]] static void* map(std::size_t bytes) {
    std::size_t const size = mapped(bytes);
    void* const raw = ::mmap(nullptr, size + page_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) {
      throw std::bad_alloc();
    }
    // What lies before and behind the aligned part goes back.
    auto* const start = static_cast<std::byte*>(raw);
    std::size_t const before =
        (page_bytes - reinterpret_cast<std::uintptr_t>(raw) % page_bytes) % page_bytes;
    if (before > 0) {
      ::munmap(start, before);
    }
    ::munmap(start + before + size, page_bytes - before);
    std::byte* const aligned = start + before;
    advise_huge_pages(aligned, size);
    return aligned;
  }

  static void give_back(void* pointer, std::size_t bytes) noexcept {
    ::munmap(pointer, mapped(bytes));
  }

  /// Bytes of memory that the machine has; 0 if it does not say.
  [[nodiscard]] static std::size_t machine_bytes() noexcept {
    long const pages = ::sysconf(_SC_PHYS_PAGES);
    long const bytes = ::sysconf(_SC_PAGESIZE);
    return pages <= 0 || bytes <= 0
               ? 0
               : static_cast<std::size_t>(pages) * static_cast<std::size_t>(bytes);
  }

 private:
  /// Every small page is written, in case there are no huge ones; at least 8 huge pages a thread.
  template <class Thread>
  static void touch(std::byte* start, std::size_t size) {
    std::size_t const pages = size / page_bytes;
    std::size_t const threads = std::clamp<std::size_t>(
        std::min<std::size_t>(std::thread::hardware_concurrency(), pages / 8), 1, 16);
    auto const part = [=](std::size_t thread) {
      std::byte volatile* const end = start + pages * (thread + 1) / threads * page_bytes;
      for (std::byte volatile* at = start + pages * thread / threads * page_bytes; at < end;
           at += 4096) {
        *at = std::byte{0};
      }
    };
    std::vector<Thread> others;
    others.reserve(threads - 1);
    for (std::size_t thread = 1; thread < threads; ++thread) {
      others.emplace_back(part, thread);
    }
    part(0);
  }
};

}  // namespace v0
}  // namespace shardmesh
