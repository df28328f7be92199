// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/huge_pages.hpp>

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <shardmesh/memory/block_pool.hpp>

namespace huge_pages_test {

using shardmesh::HugePages;

static_assert(shardmesh::BlockSource<HugePages>);
static_assert(HugePages::mapped(1) == HugePages::page_bytes);
static_assert(HugePages::mapped(HugePages::page_bytes) == HugePages::page_bytes);

TEST_SUITE_BEGIN("memory.huge_pages");

TEST_CASE("memory in huge pages is aligned, resident, zero, and all of it can be written") {
  for (std::size_t bytes : {std::size_t{1}, HugePages::page_bytes, std::size_t{70'000'001}}) {
    auto* const start = static_cast<unsigned char*>(HugePages::obtain(bytes));
    CHECK(reinterpret_cast<std::uintptr_t>(start) % HugePages::page_bytes == 0);
    std::size_t const size = HugePages::mapped(bytes);
    std::vector<unsigned char> resident(size / 4096);
    REQUIRE(::mincore(start, size, resident.data()) == 0);
    std::size_t pages = 0;
    for (unsigned char page : resident) {
      pages += page & 1U;
    }
    CHECK(pages == resident.size());
    std::size_t not_zero = 0;
    for (std::size_t i = 0; i < size; ++i) {
      not_zero += start[i] != 0;
      start[i] = 1;
    }
    CHECK(not_zero == 0);
    HugePages::give_back(start, bytes);
    CHECK(::mincore(start, size, resident.data()) != 0);  // nothing is mapped there any more
  }
}

TEST_CASE("more memory than an address space has is refused") {
  CHECK_THROWS_AS(static_cast<void>(HugePages::obtain(std::size_t{1} << 62)), std::bad_alloc);
}

TEST_SUITE_END();

}  // namespace huge_pages_test
