// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/nearest.hpp>
#include <shardmesh/core/text.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace text_test {

namespace sm = shardmesh;

static_assert(sm::is_utf8("plain"));

TEST_SUITE_BEGIN("core.text");

TEST_CASE("escaped text is printable ASCII of limited length") {
  CHECK(sm::escaped("layer.0.weight") == "layer.0.weight");
  CHECK(sm::escaped("a\n\"b\\") == "a\\x0a\\x22b\\x5c");
  CHECK(sm::escaped("\x7f\xff") == "\\x7f\\xff");
  CHECK(sm::escaped(std::string(5, 'x'), 3) == "xxx...");
  CHECK(sm::escaped("xxx", 3) == "xxx");
}

TEST_CASE("well-formed UTF-8 is told from what only looks like it") {
  CHECK(sm::is_utf8(""));
  CHECK(sm::is_utf8("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf"));
  CHECK_FALSE(sm::is_utf8("\x80"));              // continues nothing
  CHECK_FALSE(sm::is_utf8("\xc3"));              // cut off
  CHECK_FALSE(sm::is_utf8("\xc3("));             // no continuation
  CHECK_FALSE(sm::is_utf8("\xc0\xaf"));          // overlong
  CHECK_FALSE(sm::is_utf8("\xe0\x80\xaf"));      // overlong
  CHECK_FALSE(sm::is_utf8("\xed\xa0\x80"));      // a surrogate
  CHECK_FALSE(sm::is_utf8("\xf4\x90\x80\x80"));  // beyond the last code point
  CHECK_FALSE(sm::is_utf8("\xff"));
}

TEST_CASE("the nearest word is that of the fewest edits, or one with steps in front") {
  CHECK(sm::edit_distance("", "abc") == 3);
  CHECK(sm::edit_distance("kitten", "sitting") == 3);
  CHECK(sm::edit_distance("shape", "shpae") == 1);  // neighbours swapped
  CHECK(sm::edit_distance("weight", "bias", 2) == 2);
  std::vector<std::string> const keys{"lr", "model.weight", "weigth", "bias"};
  CHECK(sm::nearest("weight", keys) == "model.weight");
  CHECK(sm::nearest("net.bias", keys) == "bias");
  CHECK(sm::nearest("biass", keys) == "bias");
  CHECK(sm::nearest("momentum", keys, 3) == "");
  CHECK(sm::nearest("x", std::vector<std::string>{}) == "");
}

TEST_SUITE_END();

}  // namespace text_test
