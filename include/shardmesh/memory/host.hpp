// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <new>
#include <span>

#include <shardmesh/memory/float_convert.hpp>
#include <shardmesh/memory/host_copy.hpp>
#include <shardmesh/memory/host_reduce.hpp>
#include <shardmesh/memory/page_advice.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/memory/strided_copy.hpp>

namespace shardmesh {
inline namespace v0 {

/// Ordinary host memory, aligned to 64 bytes. Work is done when a call returns. What takes several huge pages is aligned to
/// them, and the kernel is asked for them.
struct HostMemory {
  static constexpr MemoryKind kind = MemoryKind::host;
  static constexpr bool host_accessible = true;
  static constexpr std::size_t alignment = 64;
  using Stream = HostStream;
  using Event = HostEvent;
  using OwnedStream = HostOwnedStream;

  /// @returns nullptr for 0 bytes.
  /// @throws std::bad_alloc
  [[nodiscard]] static void* allocate(std::size_t bytes, Stream = {}) {
    if (bytes == 0) {
      return nullptr;
    }
    void* const pointer = ::operator new(bytes, alignment_of(bytes));
    if (bytes >= least_in_huge_pages) {
      advise_huge_pages(pointer, bytes);
    }
    return pointer;
  }
  static void deallocate(void* pointer, std::size_t bytes, Stream = {}) noexcept {
    if (pointer != nullptr) {
      ::operator delete(pointer, bytes, alignment_of(bytes));
    }
  }

  /// @pre source and destination do not overlap.
  static void copy(StridedCopy const& strided, Stream = {}) { host_copy(collapse(strided)); }

  static void fill_zero(void* pointer, std::size_t bytes, Stream = {}) {
    if (bytes > 0) {
      std::memset(pointer, 0, bytes);
    }
  }

  /// @throws InvalidArgument, UnsupportedError as `host_reduce`.
  template <std::integral Count>
  static void reduce(DType dtype,
                     ReduceOp op,
                     void* destination,
                     std::span<void const* const> sources,
                     Count count,
                     Stream = {}) {
    host_reduce(dtype, op, destination, sources, count);
  }

  /// @throws UnsupportedError as `host_convert`.
  template <std::integral Count>
  static void convert(
      DType from, void const* source, DType to, void* target, Count count, Stream = {}) {
    host_convert(from, source, to, target, count);
  }

  [[nodiscard]] static OwnedStream make_stream() noexcept { return {}; }

  template <class F>
  static void for_each_index(index_t count, F const& f, Stream = {}) {
    for (index_t i = 0; i < count; ++i) {
      f(i);
    }
  }

  [[nodiscard]] static Event make_event() noexcept { return {}; }
  static void record(Event&, Stream) noexcept {}
  static void wait(Stream, Event const&) noexcept {}

 private:
  static constexpr std::size_t least_in_huge_pages = 4 * huge_page_bytes;

  [[nodiscard]] static std::align_val_t alignment_of(std::size_t bytes) noexcept {
    return std::align_val_t{bytes < least_in_huge_pages ? alignment : huge_page_bytes};
  }
};

static_assert(MemorySpace<HostMemory>);

}  // namespace v0
}  // namespace shardmesh
