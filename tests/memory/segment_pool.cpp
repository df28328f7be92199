// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/segment_pool.hpp>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace segment_pool_test {

namespace sm = shardmesh;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

/// A device that is played: work is numbers in queues, and done when the test says so.
struct Device {
  std::map<unsigned, long> given;  // by queue
  std::map<unsigned, long> done;
  std::map<std::byte*, std::size_t> segments;
  std::size_t capacity = std::size_t{1} << 40;
  std::size_t taken = 0;
  std::uintptr_t next = std::uintptr_t{1} << 32;
  int finishes = 0;
};

struct Source {
  struct Queue {
    int place = 0;
    unsigned id = 0;
    auto operator<=>(Queue const&) const = default;
  };
  struct Mark {
    unsigned queue = 0;
    long time = 0;
  };
  Device* device = nullptr;

  /// Addresses that nobody touches.
  [[nodiscard]] void* obtain(std::size_t bytes) const {
    if (device->taken + bytes > device->capacity) {
      return nullptr;
    }
    device->taken += bytes;
    auto* const start = reinterpret_cast<std::byte*>(device->next);
    device->next += bytes + 4096;
    device->segments[start] = bytes;
    return start;
  }
  void give_back(void* pointer) const noexcept {
    auto const at = device->segments.find(static_cast<std::byte*>(pointer));
    if (at == device->segments.end()) {
      std::abort();
    }
    device->taken -= at->second;
    device->segments.erase(at);
  }
  void mark(Mark& mark, Queue queue) const noexcept {
    mark = {queue.id, ++device->given[queue.id]};
  }
  [[nodiscard]] bool has_passed(Mark const& mark) const noexcept {
    return device->done[mark.queue] >= mark.time;
  }
  void finish() const {
    ++device->finishes;
    device->done = device->given;
  }
};
static_assert(sm::SegmentSource<Source>);

using Pool = sm::SegmentPool<Source>;
constexpr Source::Queue first{0, 1};
constexpr Source::Queue second{0, 2};

}  // namespace

TEST_CASE("a block that was given back is there at once for the same queue") {
  Device device;
  Pool pool(Source{&device});
  CHECK(pool.allocate(0, first) == nullptr);
  for (std::size_t const bytes : {std::size_t{1}, std::size_t{5000}, 3 * mib, 100 * mib}) {
    void* const block = pool.allocate(bytes, first);
    REQUIRE(block != nullptr);
    CHECK(reinterpret_cast<std::uintptr_t>(block) % Pool::alignment == 0);
    pool.deallocate(block, first);
    CHECK(pool.allocate(bytes, first) == block);
    pool.deallocate(block, first);
  }
  CHECK(pool.used(0) == 0);
  CHECK(pool.obtained() == 8 * mib + 64 * mib + 100 * mib);
}

TEST_CASE("another queue gets a block when the work before it is done") {
  Device device;
  Pool pool(Source{&device});
  void* const block = pool.allocate(20 * mib, first);
  pool.deallocate(block, first);
  void* const other = pool.allocate(20 * mib, second);
  CHECK(other != block);
  device.done = device.given;
  CHECK(pool.allocate(20 * mib, second) == block);
  pool.deallocate(block, second);
  pool.deallocate(other, second);
}

TEST_CASE("the smallest block that fits is cut, and neighbours become one again") {
  Device device;
  Pool pool(Source{&device});
  std::vector<void*> blocks;
  for (int i = 0; i < 16; ++i) {
    blocks.push_back(pool.allocate(4 * mib, first));
  }
  CHECK(pool.obtained() == 64 * mib);
  void* const large = pool.allocate(40 * mib, first);
  pool.deallocate(large, first);
  pool.deallocate(blocks[3], first);
  CHECK(pool.allocate(4 * mib, first) == blocks[3]);  // and not a piece of the larger one
  for (void* const block : blocks) {
    pool.deallocate(block, first);
  }
  CHECK(pool.allocate(64 * mib, first) == blocks[0]);
  CHECK(pool.obtained() == 104 * mib);
  CHECK(pool.used(0) == 64 * mib);
  CHECK(pool.take_peak(0) == 104 * mib);
  CHECK(pool.take_peak(0) == 64 * mib);
}

TEST_CASE("where memory lies is told, and stays true") {
  Device device;
  Pool pool(Source{&device});
  void* const block = pool.allocate(20 * mib, first);
  void* const rest = pool.allocate(2 * mib, first);
  auto const place = pool.locate(static_cast<std::byte*>(rest) + 77);
  REQUIRE(place.has_value());
  CHECK(static_cast<std::byte*>(place->segment) + place->offset ==
        static_cast<std::byte*>(rest) + 77);
  int foreign = 0;
  CHECK(!pool.locate(&foreign).has_value());
  CHECK(!pool.locate(reinterpret_cast<void*>(device.next)).has_value());
  pool.deallocate(block, first);
  pool.deallocate(rest, first);
  pool.trim(first);  // the first segment has not been shown
  CHECK(pool.obtained() == 64 * mib);
  CHECK(pool.allocate(2 * mib, first) == place->segment);
}

TEST_CASE("where there is no memory, work is waited for, and what nobody uses is given back") {
  Device device;
  device.capacity = 100 * mib;
  Pool pool(Source{&device});
  void* const block = pool.allocate(60 * mib, first);
  pool.deallocate(block, first);
  // Not done, and no room beside it: waited for.
  CHECK(pool.allocate(60 * mib, second) == block);
  CHECK(device.finishes == 1);
  pool.deallocate(block, second);
  // Larger than what is there: that is given back first.
  void* const larger = pool.allocate(90 * mib, first);
  CHECK(larger != nullptr);
  CHECK(pool.obtained() == 90 * mib);
  CHECK(pool.allocate(20 * mib, first) == nullptr);
  CHECK(pool.allocate(6 * mib, first) != nullptr);  // less than a segment is usually
  pool.deallocate(larger, first);
  CHECK(pool.locate(larger).has_value());
  CHECK(pool.allocate(95 * mib, first) == nullptr);  // what was shown stays
  CHECK(pool.allocate(90 * mib, first) == larger);
}

TEST_CASE("blocks never overlap, and no queue gets what another may still use") {
  struct InUse {
    std::size_t bytes;
    Source::Queue queue;
  };
  struct LastUse {
    std::size_t bytes;
    unsigned queue;
    long time;  // of its queue's work
  };
  for (unsigned seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    Device device;
    device.capacity = seed % 2 == 0 ? device.capacity : 400 * mib;
    Pool pool(Source{&device});
    std::map<std::byte*, InUse> in_use;
    std::map<std::byte*, LastUse> last;  // of free memory
    std::size_t used = 0;
    int failures = 0;
    for (int step = 0; step < 3000; ++step) {
      Source::Queue const queue{0, static_cast<unsigned>(random() % 3)};
      if (in_use.size() < 40 && random() % 2 == 0) {
        std::size_t const bytes = random() % 3 == 0   ? random() % mib + 1
                                  : random() % 2 == 0 ? random() % (8 * mib) + 1
                                                      : random() % (40 * mib) + 1;
        int const finishes = device.finishes;
        auto* const block = static_cast<std::byte*>(pool.allocate(bytes, queue));
        if (block == nullptr) {
          ++failures;
          continue;
        }
        auto const after = in_use.lower_bound(block);
        bool const apart = (after == in_use.end() || block + bytes <= after->first) &&
                           (after == in_use.begin() ||
                            std::prev(after)->first + std::prev(after)->second.bytes <= block);
        REQUIRE(apart);
        for (auto at = last.begin(); at != last.end();) {
          bool const touches = at->first < block + bytes && block < at->first + at->second.bytes;
          bool const safe = at->second.queue == queue.id || device.finishes > finishes ||
                            device.done[at->second.queue] >= at->second.time;
          REQUIRE((!touches || safe));
          at = touches ? last.erase(at) : std::next(at);
        }
        in_use[block] = {bytes, queue};
        used += (bytes + Pool::alignment - 1) / Pool::alignment * Pool::alignment;
      } else if (!in_use.empty()) {
        auto at = in_use.begin();
        std::advance(at, static_cast<std::ptrdiff_t>(random() % in_use.size()));
        // Behind all work of that queue; small blocks have no mark of their own.
        long const time = ++device.given[queue.id];
        last[at->first] = {at->second.bytes, queue.id, time};
        used -= (at->second.bytes + Pool::alignment - 1) / Pool::alignment * Pool::alignment;
        pool.deallocate(at->first, queue);
        in_use.erase(at);
      }
      if (random() % 8 == 0) {
        auto const some = static_cast<unsigned>(random() % 3);
        device.done[some] = device.given[some];
      }
      REQUIRE(pool.used(0) >= used);
    }
    CHECK((failures == 0 || device.capacity == 400 * mib));
    for (auto const& [block, use] : in_use) {
      pool.deallocate(block, use.queue);
    }
    CHECK(pool.used(0) == 0);
    pool.trim(first);
    CHECK(pool.obtained() == 0);  // all has come together again
    CHECK(device.segments.empty());
  }
}

TEST_CASE("memory of a place goes to work of that place alone") {
  Device device;
  Pool pool(Source{&device});
  void* const here = pool.allocate(20 * mib, {0, 1});
  pool.deallocate(here, {0, 1});
  device.done = device.given;
  void* const there = pool.allocate(20 * mib, {1, 7});
  CHECK(there != here);
  pool.deallocate(there, {0, 1});  // by a thread that is at another place
  CHECK(pool.used(1) == 0);
  device.done = device.given;
  CHECK(pool.allocate(20 * mib, {0, 1}) == here);
  CHECK(pool.allocate(20 * mib, {1, 7}) == there);
}

TEST_CASE("threads share a pool") {
  Device device;
  Pool pool(Source{&device});
  {
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < 4; ++t) {
      threads.emplace_back([&pool, t] {
        for (std::size_t i = 1; i < 300; ++i) {
          void* const a = pool.allocate(i * 1000, {0, t});
          void* const b = pool.allocate(i * 77, {0, t});
          pool.deallocate(a, {0, t});
          pool.deallocate(b, {0, t});
        }
      });
    }
  }
  CHECK(pool.used(0) == 0);
}

}  // namespace segment_pool_test
