// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/buffer.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <shardmesh/memory/host.hpp>

namespace buffer_test {

namespace sm = shardmesh;

namespace {

std::uintptr_t address_of(void const* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer);
}

/// What was given back, in which order and on which stream.
struct Freed {
  std::uintptr_t address;  // no pointer: it would dangle
  std::size_t bytes;
  int stream;
  bool operator==(Freed const&) const = default;
};

/// Host memory that keeps a record through its stream.
struct Recorded : sm::HostMemory {
  struct Stream {
    int number = 0;
    std::vector<Freed>* freed = nullptr;
    void synchronize() const {}
  };
  struct OwnedStream {
    Stream get() const { return {}; }
  };
  static OwnedStream make_stream() { return {}; }
  static void* allocate(std::size_t bytes, Stream) { return sm::HostMemory::allocate(bytes); }
  static void deallocate(void* pointer, std::size_t bytes, Stream stream) noexcept {
    if (stream.freed != nullptr && pointer != nullptr) {
      stream.freed->push_back({address_of(pointer), bytes, stream.number});
    }
    sm::HostMemory::deallocate(pointer, bytes);
  }
  static void copy(sm::StridedCopy const&, Stream) {}
  static void fill_zero(void*, std::size_t, Stream) {}
  static void reduce(
      sm::DType, sm::ReduceOp, void*, std::span<void const* const>, sm::index_t, Stream) {}
  static void convert(sm::DType, void const*, sm::DType, void*, sm::index_t, Stream) {}
  template <class F>
  static void for_each_index(sm::index_t, F const&, Stream) {}
  static void record(Event&, Stream) {}
  static void wait(Stream, Event const&) {}
};

using HostBuffer = sm::Buffer<sm::HostMemory>;
using RecordedBuffer = sm::Buffer<Recorded>;

static_assert(!std::is_copy_constructible_v<HostBuffer>);
static_assert(!std::is_copy_assignable_v<HostBuffer>);
static_assert(std::is_nothrow_move_constructible_v<HostBuffer>);
static_assert(std::is_nothrow_move_assignable_v<HostBuffer>);
static_assert(!std::is_convertible_v<std::size_t, HostBuffer>);

}  // namespace

TEST_SUITE_BEGIN("memory.buffer");

TEST_CASE("a buffer of 0 bytes is legal and holds nothing") {
  HostBuffer const none(0);
  CHECK(none.data() == nullptr);
  CHECK(none.size() == 0);
  CHECK(HostBuffer().size() == 0);
}

TEST_CASE("a move takes the bytes and leaves an empty buffer") {
  HostBuffer first(100);
  void* const data = first.data();
  HostBuffer second(std::move(first));
  CHECK(first.data() == nullptr);
  CHECK(first.size() == 0);
  CHECK(second.data() == data);
  CHECK(second.size() == 100);
}

TEST_CASE("bytes are given back once, on the stream that they came with") {
  std::vector<Freed> freed;
  std::uintptr_t one = 0;
  std::uintptr_t two = 0;
  {
    RecordedBuffer a(10, {1, &freed});
    RecordedBuffer b(20, {2, &freed});
    one = address_of(a.data());
    two = address_of(b.data());
    b = std::move(a);
    CHECK(freed == std::vector<Freed>{{two, 20, 2}});
    CHECK(address_of(b.data()) == one);
    CHECK(b.size() == 10);
    RecordedBuffer const none(0, {3, &freed});
  }
  CHECK(freed == std::vector<Freed>{{two, 20, 2}, {one, 10, 1}});
}

TEST_CASE("assignment to itself keeps the bytes") {
  HostBuffer buffer(64);
  void* const data = buffer.data();
  HostBuffer& same = buffer;
  buffer = std::move(same);
  CHECK(buffer.data() == data);
  CHECK(buffer.size() == 64);
}

TEST_SUITE_END();

}  // namespace buffer_test
