// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/host_pool.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <sys/resource.h>

#include <doctest/doctest.h>
#include <shardmesh/memory/host_block.hpp>
#include <shardmesh/memory/host_buckets.hpp>

namespace host_pool_test {

namespace sm = shardmesh;
using sm::HostPool;

namespace {

constexpr std::size_t mebi = std::size_t{1} << 20;

/// Faults of this process for pages that it had to be given.
long faults() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return used.ru_minflt;
}

/// What a device knows of: the pages that have arrived and not left.
struct Ledger {
  std::mutex mutex;
  std::map<void*, std::size_t> pages;
  int arrived = 0;
  bool refuses = false;
};
Ledger& ledger() {
  static Ledger instance;
  return instance;
}
constexpr sm::PageHook noting{[](void* pages, std::size_t bytes) noexcept {
                                std::lock_guard const lock(ledger().mutex);
                                if (!ledger().refuses) {
                                  ledger().pages.emplace(pages, bytes);
                                  ++ledger().arrived;
                                }
                                return !ledger().refuses;
                              },
                              [](void* pages, std::size_t bytes) noexcept {
                                std::lock_guard const lock(ledger().mutex);
                                auto const found = ledger().pages.find(pages);
                                if (found == ledger().pages.end() || found->second != bytes) {
                                  std::abort();
                                }
                                ledger().pages.erase(found);
                              }};

}  // namespace

TEST_SUITE_BEGIN("memory.host_pool");

TEST_CASE("what is given back is used again, and costs no new page") {
  HostPool pool(200 * mebi);
  void* const first = pool.allocate(100 * mebi);
  std::memset(first, 1, 100 * mebi);
  pool.deallocate(first);
  CHECK(pool.idle() == 100 * mebi);
  CHECK(pool.in_use() == 0);
  long const before = faults();
  void* const second = pool.allocate(100 * mebi - 5);
  CHECK(second == first);
  std::memset(second, 2, 100 * mebi);
  CHECK(faults() - before < 50);  // of 25,600 small pages, or 50 huge ones
  pool.deallocate(second);
}

TEST_CASE("blocks do not overlap, neighbours become one again, and all is found free in the end") {
  HostPool pool(std::size_t{1} << 30);
  std::mt19937_64 random(7);
  struct Taken {
    std::byte* first;
    std::size_t bytes;
    unsigned char mark;
  };
  std::vector<Taken> taken;
  std::size_t held = 0;
  auto const give_back = [&](std::size_t i) {
    Taken const one = taken[i];
    for (std::size_t at : {std::size_t{0}, one.bytes / 2, one.bytes - 1}) {
      REQUIRE(std::to_integer<unsigned char>(one.first[at]) == one.mark);
    }
    pool.deallocate(one.first);
    held -= (one.bytes + HostPool::unit - 1) / HostPool::unit * HostPool::unit;
    taken.erase(taken.begin() + static_cast<std::ptrdiff_t>(i));
  };
  for (int step = 0; step < 2'000; ++step) {
    if (taken.size() < 20 && random() % 3 != 0) {
      std::size_t const bytes = 1 + random() % (std::size_t{1} << (10 + random() % 14));
      auto const mark = static_cast<unsigned char>(random());
      auto* const first = static_cast<std::byte*>(pool.allocate(bytes));
      REQUIRE(reinterpret_cast<std::uintptr_t>(first) % HostPool::unit == 0);
      for (std::size_t at : {std::size_t{0}, bytes / 2, bytes - 1}) {
        first[at] = std::byte{mark};
      }
      taken.push_back({first, bytes, mark});
      held += (bytes + HostPool::unit - 1) / HostPool::unit * HostPool::unit;
    } else if (!taken.empty()) {
      give_back(random() % taken.size());
    }
    REQUIRE(pool.in_use() == held);
  }
  while (!taken.empty()) {
    give_back(taken.size() - 1);
  }
  // Were the neighbours apart, there would be no mapping that is free as a whole.
  CHECK(pool.idle() > 0);
  pool.release();
  CHECK(pool.idle() == 0);
}

TEST_CASE("what is kept stays within the bound, the last used is kept longest") {
  HostPool pool(100 * mebi);
  void* const a = pool.allocate(40 * mebi);
  void* const b = pool.allocate(50 * mebi);
  void* const c = pool.allocate(60 * mebi);
  pool.deallocate(b);
  pool.deallocate(a);
  CHECK(pool.idle() == 90 * mebi);
  pool.deallocate(c);
  CHECK(pool.idle() == 100 * mebi);  // b is gone
  CHECK(pool.allocate(40 * mebi) == a);
  CHECK(pool.allocate(60 * mebi) == c);
  pool.deallocate(a);
  pool.keep_at_most(0);
  CHECK(pool.idle() == 0);
  pool.deallocate(c);
  CHECK(pool.idle() == 0);
  void* const large = pool.allocate(200 * mebi);
  pool.keep_at_most(150 * mebi);
  pool.deallocate(large);
  CHECK(pool.idle() == 0);  // larger than the bound
}

TEST_CASE("what is warmed is there, touched, and raises the bound") {
  HostPool pool(0);
  pool.warm(64 * mebi);
  CHECK(pool.idle() == 64 * mebi);
  pool.warm(30 * mebi);
  CHECK(pool.idle() == 64 * mebi);  // there is enough
  long const before = faults();
  void* const a = pool.allocate(40 * mebi);
  void* const b = pool.allocate(24 * mebi);
  std::memset(a, 1, 40 * mebi);
  std::memset(b, 1, 24 * mebi);
  CHECK(faults() - before < 32);
  CHECK(pool.idle() == 0);
  pool.deallocate(a);
  pool.deallocate(b);
  CHECK(pool.idle() == 64 * mebi);
}

TEST_CASE("pages are prepared for devices once, and kept so") {
  {
    HostPool pool(200 * mebi);
    void* const early = pool.allocate(40 * mebi);
    CHECK_FALSE(pool.is_prepared(early));
    pool.deallocate(early);
    pool.use(noting);
    for (int i = 0; i < 3; ++i) {
      void* const again = pool.allocate(40 * mebi);  // mapped before there was a hook
      CHECK(again == early);
      CHECK(pool.is_prepared(again));
      void* const other = pool.allocate(5 * mebi);
      CHECK(pool.is_prepared(other));
      pool.deallocate(again);
      pool.deallocate(other);
    }
    CHECK(ledger().arrived == 2);
    ledger().refuses = true;
    void* const refused = pool.allocate(70 * mebi);
    CHECK_FALSE(pool.is_prepared(refused));
    pool.deallocate(refused);
    ledger().refuses = false;
  }
  CHECK(ledger().pages.empty());
}

TEST_CASE("several threads take and give back") {
  HostPool pool(64 * mebi);
  std::vector<std::jthread> threads;
  for (unsigned thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&pool, thread] {
      std::mt19937_64 random(thread);
      for (int i = 0; i < 200; ++i) {
        std::size_t const bytes = 1 + random() % (8 * mebi);
        auto* const block = static_cast<unsigned char*>(pool.allocate(bytes));
        block[0] = static_cast<unsigned char>(thread);
        block[bytes - 1] = static_cast<unsigned char>(thread);
        std::this_thread::yield();
        if (block[0] != thread || block[bytes - 1] != thread) {
          std::abort();
        }
        pool.deallocate(block);
      }
    });
  }
  threads.clear();
  CHECK(pool.in_use() == 0);
  CHECK(pool.idle() <= 64 * mebi);
}

TEST_CASE("memory that is not there is refused, and nothing is lost") {
  HostPool pool;
  CHECK_THROWS_AS(static_cast<void>(pool.allocate(std::size_t{1} << 62)), std::bad_alloc);
  CHECK_THROWS_AS(static_cast<void>(pool.allocate(SIZE_MAX)), std::bad_alloc);
  CHECK(pool.in_use() == 0);
  CHECK(HostPool::usual_bound() > 0);
}

TEST_CASE("blocks of the process's pool go back to it") {
  std::size_t const before = sm::host_pool().in_use();
  {
    sm::HostBlock block(10 * mebi);
    CHECK(sm::host_pool().in_use() == before + 10 * mebi);
    sm::HostBlock moved = std::move(block);
    CHECK(block.data() == nullptr);
    CHECK(moved.size() == 10 * mebi);
    moved = sm::HostBlock(100);
    CHECK(sm::host_pool().in_use() == before);
    CHECK(sm::HostBlock().empty());
    sm::HostBlock const direct(8192);
    CHECK(reinterpret_cast<std::uintptr_t>(direct.data()) % 4096 == 0);
  }
  CHECK(sm::host_pool().in_use() == before);
}

TEST_CASE("small pieces share blocks, which go back with the last of their pieces") {
  std::size_t const before = sm::host_pool().in_use();
  std::vector<std::pair<std::shared_ptr<std::byte>, std::size_t>> pieces;
  {
    sm::HostBuckets buckets;
    CHECK(buckets.take(0) == nullptr);
    std::mt19937_64 random(3);
    for (int i = 0; i < 300; ++i) {
      std::size_t const bytes = 1 + random() % (i % 10 == 0 ? 2 * mebi : std::size_t{70'000});
      pieces.emplace_back(buckets.take(bytes), bytes);
      std::byte* const first = pieces.back().first.get();
      CHECK(reinterpret_cast<std::uintptr_t>(first) % sm::HostBuckets::alignment == 0);
      std::memset(first, i, bytes);
    }
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    auto const* const first = pieces[i].first.get();
    CHECK(first[0] == static_cast<std::byte>(i));
    CHECK(std::memcmp(first, first + 1, pieces[i].second - 1) == 0);
  }
  CHECK(sm::host_pool().in_use() > before);
  pieces.clear();
  CHECK(sm::host_pool().in_use() == before);
}

TEST_SUITE_END();

}  // namespace host_pool_test
