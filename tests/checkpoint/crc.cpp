// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The CRC-32 of the library that the build has chosen against zlib's. Compiled for either choice.
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/format/crc32.hpp>

namespace format = shardmesh::format;

TEST_SUITE_BEGIN("checkpoint.crc");

namespace {

std::vector<std::byte> some_bytes(std::size_t count) {
  std::vector<std::byte> bytes(count);
  std::uint64_t state = count;
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<std::byte>(state >> 56);
  }
  return bytes;
}

std::uint32_t reference(format::ByteSpan bytes) {
  return static_cast<std::uint32_t>(
      ::crc32_z(0, reinterpret_cast<unsigned char const*>(bytes.data()), bytes.size()));
}

}  // namespace

TEST_CASE("the CRC-32 is zip's, for every length and place") {
  CHECK(format::crc32_of(format::as_bytes("123456789")) == 0xcbf43926U);
  CHECK(format::crc32_of({}) == 0);
  CHECK(format::crc32_of({}, 0x12345678U) == 0x12345678U);
  std::vector<std::byte> const bytes = some_bytes(9000);
  for (std::size_t first = 0; first < 17; ++first) {
    for (std::size_t count :
         {1U, 2U, 7U, 8U, 15U, 16U, 31U, 63U, 64U, 65U, 255U, 256U, 257U, 4095U, 8192U}) {
      format::ByteSpan const part = format::ByteSpan(bytes).subspan(first, count);
      CHECK(format::crc32_of(part) == reference(part));
    }
  }
}

TEST_CASE("sums of parts, one after the other or each alone, are the sum of the whole") {
  std::vector<std::byte> const bytes = some_bytes(3'000'017);
  format::ByteSpan const all(bytes);
  for (std::size_t cut :
       {std::size_t{0}, std::size_t{1}, std::size_t{4096}, std::size_t{1'500'001}, bytes.size()}) {
    std::uint32_t const first = format::crc32_of(all.first(cut));
    CHECK(format::crc32_of(all.subspan(cut), first) == reference(all));
    CHECK(format::combine_crc32(first, format::crc32_of(all.subspan(cut)), bytes.size() - cut) ==
          reference(all));
  }
}

TEST_CASE("the sum of zeros is known without them") {
  std::vector<std::byte> const zeros((1U << 20) + 1);
  for (std::size_t count : {0U, 1U, 2U, 3U, 255U, 4096U, 65'535U, 1U << 20, (1U << 20) + 1}) {
    CHECK(format::crc32_of_zeros(count) == reference(format::ByteSpan(zeros).first(count)));
  }
}

TEST_CASE("the library is the one that the build says") {
#if defined(SHARDMESH_HAVE_ISAL)
  CHECK(std::string_view(SHARDMESH_TEST_CRC) == "isal");
#else
  CHECK(std::string_view(SHARDMESH_TEST_CRC) == "zlib");
#endif
}

TEST_SUITE_END();
