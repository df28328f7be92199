// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/memory/host.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/memory/page_advice.hpp>

#include "boxes.hpp"

namespace host_test {

namespace sm = shardmesh;

static_assert(sm::MemorySpace<sm::HostMemory>);
static_assert(sm::HostMemory::host_accessible);
static_assert(sm::HostMemory::kind == sm::MemoryKind::host);

namespace {

/// What the kernel says of the mapping in which `pointer` lies.
bool asked_for_huge_pages(void const* pointer) {
  auto const address = reinterpret_cast<std::uintptr_t>(pointer);
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t first = 0;
    std::uintptr_t last = 0;
    char dash = 0;
    std::istringstream words(line);
    if (words >> std::hex >> first >> dash >> last && dash == '-') {
      inside = first <= address && address < last;
    } else if (inside && line.starts_with("VmFlags:")) {
      return line.find(" hg") != std::string::npos;
    }
  }
  return false;
}

}  // namespace

TEST_SUITE_BEGIN("memory.host");

TEST_CASE("allocations are aligned to 64 bytes; none is made for 0 bytes") {
  for (std::size_t bytes : {1U, 63U, 64U, 1000U}) {
    void* const pointer = sm::HostMemory::allocate(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(pointer) % 64 == 0);
    sm::HostMemory::fill_zero(pointer, bytes);
    CHECK(static_cast<std::byte const*>(pointer)[bytes - 1] == std::byte{0});
    sm::HostMemory::deallocate(pointer, bytes);
  }
  CHECK(sm::HostMemory::allocate(0) == nullptr);
  sm::HostMemory::fill_zero(nullptr, 0);
  sm::HostMemory::deallocate(nullptr, 0);
}

TEST_CASE("big allocations are aligned to huge pages, which the kernel is asked for; small ones "
          "are not") {
  constexpr std::size_t huge = sm::huge_page_bytes;
  for (std::size_t const bytes : {4 * huge - 1, 4 * huge, 5 * huge + 12'345}) {
    void* const pointer = sm::HostMemory::allocate(bytes);
    bool const known = std::filesystem::exists("/sys/kernel/mm/transparent_hugepage");
    if (bytes >= 4 * huge) {
      CHECK(reinterpret_cast<std::uintptr_t>(pointer) % huge == 0);
      CHECK((!known || asked_for_huge_pages(pointer)));
    }
    sm::HostMemory::fill_zero(pointer, bytes);
    sm::HostMemory::deallocate(pointer, bytes);
  }
}

TEST_CASE("memory from elsewhere can be asked to lie in huge pages") {
  std::vector<std::byte> bytes(3 * sm::huge_page_bytes);
  auto const start = reinterpret_cast<std::uintptr_t>(bytes.data());
  std::byte* const page = bytes.data() + (sm::huge_page_bytes - start % sm::huge_page_bytes);
  sm::advise_huge_pages(page, sm::huge_page_bytes);
  CHECK((!std::filesystem::exists("/sys/kernel/mm/transparent_hugepage") ||
         asked_for_huge_pages(page)));
}

TEST_CASE("copy and reduce do the work of the host") {
  std::vector<float> const a{1, 2, 3, 4};
  std::vector<float> b(2);
  sm::HostMemory::copy({a.data(), b.data(), {2}, {8}, {4}, 4}, {});
  CHECK(b == std::vector<float>{1, 3});
  void const* const terms[] = {b.data(), a.data()};
  sm::HostMemory::reduce(sm::DType::float32, sm::ReduceOp::sum, b.data(), terms, 2, {});
  CHECK(b == std::vector<float>{2, 5});
}

TEST_CASE("a loop calls its function object once for each index") {
  std::vector<int> counts(5);
  struct Count {
    int* counts;
    void operator()(sm::index_t i) const noexcept { ++counts[i]; }
  };
  sm::HostMemory::for_each_index(4, Count{counts.data()});
  sm::HostMemory::for_each_index(0, Count{nullptr});
  CHECK(counts == std::vector<int>{1, 1, 1, 1, 0});
}

TEST_CASE("streams and events have nothing to wait for") {
  sm::HostMemory::Event event = sm::HostMemory::make_event();
  sm::HostMemory::record(event, {});
  sm::HostMemory::wait({}, event);
  sm::HostMemory::Stream{}.synchronize();
}

TEST_SUITE_END();

}  // namespace host_test
