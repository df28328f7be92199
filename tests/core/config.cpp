// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/config.hpp>

#include <string>

#include <doctest/doctest.h>

namespace config_test {

TEST_SUITE_BEGIN("core.config");

TEST_CASE("the version text is made of the version numbers") {
  CHECK(std::string(SHARDMESH_VERSION_STRING) == std::to_string(SHARDMESH_VERSION_MAJOR) + "." +
                                                     std::to_string(SHARDMESH_VERSION_MINOR) + "." +
                                                     std::to_string(SHARDMESH_VERSION_PATCH));
}

TEST_SUITE_END();

}  // namespace config_test
