// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/detail/shared_region.hpp>

#include <cstddef>
#include <string>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace shared_region_test {

using shardmesh::detail::SharedRegion;

TEST_CASE("processes of a host share a region by its name, until that is hidden") {
  SharedRegion made = SharedRegion::create(3 * 4096);
  REQUIRE(static_cast<bool>(made));
  std::string const name = made.name();
  struct stat status{};
  REQUIRE(::stat(name.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == 0600);
  SharedRegion opened = SharedRegion::open(name, 3 * 4096);
  REQUIRE(static_cast<bool>(opened));
  CHECK(opened.name().empty());
  CHECK(!SharedRegion::open(name, 3 * 4096 + 1));  // beyond its end, memory is not there
  CHECK(made.data()[5000] == std::byte{0});
  opened.data()[5000] = std::byte{7};
  CHECK(made.data()[5000] == std::byte{7});

  made.hide();
  CHECK(::access(name.c_str(), F_OK) != 0);
  CHECK(!SharedRegion::open(name, 4096));
  SharedRegion const moved = std::move(made);  // what it was is gone, what is shared stays
  CHECK(moved.data()[5000] == std::byte{7});
}

TEST_CASE("a region leaves no name behind, and one that cannot be had is empty") {
  std::string name;
  {
    SharedRegion const made = SharedRegion::create(4096);
    name = made.name();
    CHECK(::access(name.c_str(), F_OK) == 0);
  }
  CHECK(::access(name.c_str(), F_OK) != 0);
  SharedRegion const none = SharedRegion::create(std::size_t{1} << 60);
  CHECK(!none);
  CHECK(none.name().empty());
  CHECK(!SharedRegion());
}

}  // namespace shared_region_test
