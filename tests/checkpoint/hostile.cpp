// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The hostile set: small inputs, each of which breaks one rule, and what must be said of it.
#include <cstddef>
#include <string>

#include <doctest/doctest.h>

#include "../support/hostile_inputs.hpp"

namespace hostile_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

TEST_SUITE_BEGIN("checkpoint.hostile");

TEST_CASE("each rule of the formats has an input that breaks it, and is told") {
  std::size_t count = 0;
  for (test::hostile::Hostile const& one : test::hostile::all()) {
    CAPTURE(one.rule);
    std::string found = "(was read)";
    try {
      one.read(one.input);
    } catch (sm::Error const& error) {
      found = error.what();
    }
    CAPTURE(found);
    CHECK(found.find(one.words) != std::string::npos);
    CHECK(found.find('\x1b') == std::string::npos);
    ++count;
  }
  CHECK(count >= 60);
  MESSAGE(count << " hostile inputs");
}

TEST_CASE("what the hostile set is made of is read where it breaks no rule") {
  using namespace test::hostile;
  CHECK(format::read_dcp_metadata(format::as_bytes(with_storage(place("w", {0}) + info())))
            .entries.size() == 1);
  CHECK(format::read_tensor_item(
            format::as_bytes(tensor_of(rebuild(6, 0, {6}, {1}), std::string(24, 'd'), "little")))
            .sizes == sm::Shape{6});
  CHECK(format::read_bytes_item(format::as_bytes(plain_archive)) == sm::Value());
}

TEST_SUITE_END();

}  // namespace hostile_test
