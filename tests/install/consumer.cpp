// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A program of a stranger, of two translation units and a shared library. What one of them throws is caught by another.
#include <cstdio>
#include <string>

#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/shardmesh.hpp>

int count_shards();            // other_unit.cpp
float last_element(int rank);  // library.cpp

int main() {
  if (last_element(0) != 34.0F) {
    return 1;
  }
  try {
    last_element(2);
  } catch (shardmesh::InvalidArgument const& error) {
    bool const told = std::string(error.what()).find("rank 2 was to fail") != std::string::npos;
#if defined(SHARDMESH_HAVE_ISAL)
    constexpr char by[] = ", CRC-32 by ISA-L";
#else
    constexpr char by[] = "";
#endif
    namespace format = shardmesh::format;
    bool const sums = format::crc32_of(format::as_bytes("123456789")) == 0xcbf43926U;
    std::printf("consumer: ok, %d shards%s%s%s\n", count_shards(), by,
                told ? "" : ", but rank 2 is not named", sums ? "" : ", but with another CRC-32");
  }
  return 0;
}
