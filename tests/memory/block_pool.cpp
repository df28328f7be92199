// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/block_pool.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace block_pool_test {

namespace sm = shardmesh;

namespace {

/// What a pool has taken and not given back.
struct Taken {
  std::mutex mutex;
  std::map<void*, std::size_t> blocks;
  int calls = 0;
  bool fails = false;
};

Taken& taken() {
  static Taken instance;
  return instance;
}

struct Heap {
  static void* obtain(std::size_t bytes) {
    std::lock_guard const lock(taken().mutex);
    if (taken().fails) {
      throw std::bad_alloc();
    }
    void* const block = ::operator new(bytes, std::align_val_t{256});
    taken().blocks[block] = bytes;
    ++taken().calls;
    return block;
  }
  static void give_back(void* pointer, std::size_t bytes) noexcept {
    std::lock_guard const lock(taken().mutex);
    auto const found = taken().blocks.find(pointer);
    if (found == taken().blocks.end() || found->second != bytes) {
      std::abort();
    }
    taken().blocks.erase(found);
    ::operator delete(pointer, bytes, std::align_val_t{256});
  }
};

using Pool = sm::BlockPool<Heap>;

}  // namespace

TEST_SUITE_BEGIN("memory.block_pool");

TEST_CASE("sizes are rounded up by an eighth at most, alike for what they round to") {
  std::mt19937_64 random(1);
  for (int i = 0; i < 10'000; ++i) {
    std::size_t const bytes = 1 + (random() >> (random() % 40 + 20));
    std::size_t const block = Pool::block_bytes(bytes);
    REQUIRE(block >= bytes);
    REQUIRE(block % Pool::alignment == 0);
    REQUIRE(block <= bytes + bytes / 8 + Pool::alignment);
    REQUIRE(Pool::block_bytes(block) == block);
  }
}

TEST_CASE("what is given back is used again, and nothing more is obtained") {
  {
    Pool pool;
    std::vector<std::size_t> const sizes{1, 300, 4096, 70'000, 3'000'000, 9'000'000, 50'000'001};
    for (int round = 0; round < 50; ++round) {
      std::vector<void*> blocks;
      for (std::size_t bytes : sizes) {
        blocks.push_back(pool.allocate(bytes));
        std::memset(blocks.back(), round, bytes);
      }
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        pool.deallocate(blocks[i], sizes[i]);
      }
    }
    CHECK(taken().calls == 3);  // an arena, and two big blocks
    CHECK(pool.obtained() ==
          Pool::arena_bytes + Pool::block_bytes(9'000'000) + Pool::block_bytes(50'000'001));
    CHECK(pool.allocate(0) == nullptr);
    pool.deallocate(nullptr, 0);
  }
  CHECK(taken().blocks.empty());
}

TEST_CASE("a source that has nothing left leaves the pool as it was") {
  Pool pool;
  taken().fails = true;
  CHECK_THROWS_AS(static_cast<void>(pool.allocate(10)), std::bad_alloc);
  CHECK_THROWS_AS(static_cast<void>(pool.allocate(Pool::arena_bytes)), std::bad_alloc);
  taken().fails = false;
  void* const block = pool.allocate(10);
  pool.deallocate(block, 10);
  CHECK(pool.allocate(10) == block);
}

TEST_CASE("blocks in use never overlap, whatever threads ask for them") {
  Pool pool;
  std::vector<std::jthread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&pool, seed] {
      std::mt19937 random(seed);
      std::vector<std::pair<unsigned char*, std::size_t>> mine;
      for (int i = 0; i < 2000; ++i) {
        if (mine.size() < 8) {
          std::size_t const bytes = 1 + random() % 20'000;
          auto* const block = static_cast<unsigned char*>(pool.allocate(bytes));
          std::memset(block, static_cast<int>(seed), bytes);
          mine.emplace_back(block, bytes);
        } else {
          std::swap(mine[random() % mine.size()], mine.back());
          auto const [block, bytes] = mine.back();
          mine.pop_back();
          bool whole = true;
          for (std::size_t b = 0; b < bytes; ++b) {
            whole = whole && block[b] == seed;
          }
          CHECK(whole);
          pool.deallocate(block, bytes);
        }
      }
    });
  }
}

TEST_SUITE_END();

}  // namespace block_pool_test
