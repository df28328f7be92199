// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A program of a stranger, of two translation units and a shared library. What one of them throws is caught by another.
#include <cstdio>
#include <string>

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
    std::printf("consumer: ok, %d shards%s\n", count_shards(),
                told ? "" : ", but rank 2 is not named");
  }
  return 0;
}
