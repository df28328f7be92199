// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>

#include <sys/mman.h>

namespace shardmesh {
inline namespace v0 {

/// Bytes of a huge page, as x86-64 and most of ARM have them.
inline constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

/// Tells the kernel that huge pages are welcome in fresh memory: it hands out memory by the page, and a copy into fresh
/// small ones waits longer for the kernel than for the bytes. A kernel that has none gives small ones.
/// @param pointer  of a whole page.
inline void advise_huge_pages(void* pointer, std::size_t bytes) noexcept {
  static_cast<void>(::madvise(pointer, bytes, MADV_HUGEPAGE));
}

}  // namespace v0
}  // namespace shardmesh
