// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/error.hpp>

#include <string>
#include <type_traits>

#include <doctest/doctest.h>

namespace error_test {

namespace sm = shardmesh;

static_assert(std::is_base_of_v<std::runtime_error, sm::Error>);
static_assert(std::is_base_of_v<sm::Error, sm::InvalidArgument>);
static_assert(std::is_base_of_v<sm::InvalidArgument, sm::ShapeError>);
static_assert(std::is_base_of_v<sm::Error, sm::MismatchError>);
static_assert(std::is_base_of_v<sm::Error, sm::KeyError>);
static_assert(std::is_base_of_v<sm::CommError, sm::RankFailed>);
static_assert(std::is_base_of_v<sm::CommError, sm::TimeoutError>);
static_assert(std::is_base_of_v<sm::Error, sm::UnsupportedError>);
static_assert(std::is_nothrow_copy_constructible_v<sm::InvalidArgument>);

TEST_SUITE_BEGIN("core.error");

namespace {

template <class E>
void check_place() {
  E const error("what");  // this line is the place
  CHECK(std::string(error.what()) == "what");
  CHECK(std::string(error.where().file_name()).ends_with("error.cpp"));
}

}  // namespace

TEST_CASE("an error knows what and where") {
  check_place<sm::Error>();
  check_place<sm::InvalidArgument>();
  check_place<sm::ShapeError>();
  check_place<sm::MismatchError>();
  check_place<sm::KeyError>();
  check_place<sm::CommError>();
  check_place<sm::TimeoutError>();
  check_place<sm::UnsupportedError>();
}

TEST_CASE("errors carry the facts of their origin") {
  CHECK(sm::RankFailed(3, "gone").rank() == 3);
  sm::IoError const io("a/b", 28, "no space");
  CHECK(io.path() == "a/b");
  CHECK(io.code() == 28);
  sm::CorruptError const corrupt("a/b", 512, "checksum");
  CHECK(corrupt.path() == "a/b");
  CHECK(corrupt.offset() == 512);
  CHECK(sm::DeviceError(2, "out of memory").code() == 2);
  CHECK(std::string(sm::DeviceError(2, "out of memory").what()) == "out of memory");
}

TEST_CASE("no message commands a terminal, whatever stands in it") {
  auto const said = [](std::string const& message) {
    return std::string(sm::CommError(message).what());
  };
  CHECK(said("a \x1b[31mred\x1b[0m\r\n\tb\x7f") == "a \\x1b[31mred\\x1b[0m\\x0d\n\\x09b\\x7f");
  CHECK(said("\xc2\x9b"
             "31m") == "\\xc2\\x9b31m");  // one character, which starts a command too
  CHECK(said("Modèle \xe2\x82\xac \xc2\xa0") == "Modèle \xe2\x82\xac \xc2\xa0");
  CHECK(said(std::string("nul\0x", 5)) == "nul\\x00x");
  CHECK(said("\xc2") == "\xc2");
  CHECK(said("").empty());
}

TEST_SUITE_END();

}  // namespace error_test
