// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/fingerprint.hpp>

#include <cstdint>
#include <set>
#include <string>

#include <doctest/doctest.h>

namespace fingerprint_test {

using shardmesh::Fingerprint;

// The value is part of what ranks send each other: known at compile time, the same everywhere.
static_assert(Fingerprint().add(std::uint64_t{1}).value() ==
              Fingerprint().add(std::uint64_t{1}).value());
static_assert(Fingerprint().add("ab").add("c").value() != Fingerprint().add("a").add("bc").value());
static_assert(Fingerprint().add("").value() != Fingerprint().value());

TEST_SUITE_BEGIN("core.fingerprint");

TEST_CASE("fingerprint: order, length and every byte count") {
  CHECK(Fingerprint().add(std::uint64_t{1}).add(std::uint64_t{2}).value() !=
        Fingerprint().add(std::uint64_t{2}).add(std::uint64_t{1}).value());
  std::set<std::uint64_t> seen;
  std::string text;
  for (int length = 0; length < 40; ++length) {
    CHECK(seen.insert(Fingerprint().add(text).value()).second);
    text += '\0';
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string other = text;
    other[i] = 'x';
    CHECK(seen.insert(Fingerprint().add(other).value()).second);
  }
}

TEST_CASE("fingerprint: a million numbers, no two alike") {
  std::set<std::uint64_t> seen;
  for (std::uint64_t i = 0; i < 1'000'000; i += 7) {
    seen.insert(Fingerprint().add(i).value());
  }
  CHECK(seen.size() == 142'858);
}

TEST_SUITE_END();

}  // namespace fingerprint_test
