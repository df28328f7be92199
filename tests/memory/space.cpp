// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/space.hpp>

#include <doctest/doctest.h>

namespace space_test {

namespace sm = shardmesh;

namespace {

/// The least that a memory space is.
struct Least {
  static constexpr sm::MemoryKind kind = sm::MemoryKind::host;
  static constexpr bool host_accessible = true;
  using Stream = sm::HostStream;
  using Event = sm::HostEvent;
  using OwnedStream = sm::HostOwnedStream;
  static void* allocate(std::size_t, Stream);
  static void deallocate(void*, std::size_t, Stream) noexcept;
  static void copy(sm::StridedCopy const&, Stream);
  static void fill_zero(void*, std::size_t, Stream);
  static void reduce(
      sm::DType, sm::ReduceOp, void*, std::span<void const* const>, sm::index_t, Stream);
  static void convert(sm::DType, void const*, sm::DType, void*, sm::index_t, Stream);
  static OwnedStream make_stream();
  template <class F>
  static void for_each_index(sm::index_t, F const&, Stream);
  static Event make_event();
  static void record(Event&, Stream);
  static void wait(Stream, Event const&);
};

struct ThrowsOnDeallocate : Least {
  static void deallocate(void*, std::size_t, Stream);
};
struct WithoutKind : Least {
 private:
  using Least::kind;
};
struct WithoutReduce : Least {
 private:
  using Least::reduce;
};
struct WithoutConvert : Least {
 private:
  using Least::convert;
};
struct WithoutLoop : Least {
 private:
  using Least::for_each_index;
};
struct WithoutEvents : Least {
 private:
  using Least::make_event;
};

static_assert(sm::MemorySpace<Least>);
static_assert(!sm::MemorySpace<ThrowsOnDeallocate>);
static_assert(!sm::MemorySpace<WithoutKind>);
static_assert(!sm::MemorySpace<WithoutReduce>);
static_assert(!sm::MemorySpace<WithoutConvert>);
static_assert(!sm::MemorySpace<WithoutLoop>);
static_assert(!sm::MemorySpace<WithoutEvents>);
static_assert(!sm::MemorySpace<int>);

}  // namespace

TEST_SUITE_BEGIN("memory.space");

TEST_CASE("kinds of memory have names") {
  CHECK(to_string(sm::MemoryKind::host) == "host");
  CHECK(to_string(sm::MemoryKind::pinned) == "pinned");
  CHECK(to_string(sm::MemoryKind::cuda) == "cuda");
}

TEST_SUITE_END();

}  // namespace space_test
