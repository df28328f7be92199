// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A second translation unit, which needs zlib to be linked. That all headers link together is what the suite `headers`
// tests. Compiled the way of separate.py, too.
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/shardmesh.hpp>

int count_shards();

int count_shards() {
  shardmesh::Layout const layout({7, 5}, {2, 2}, {shardmesh::Replicate{}, shardmesh::Shard{0}});
  auto const ranks = static_cast<int>(layout.ranks());
  return shardmesh::format::combine_crc32(0, 0, 0) == 0 ? ranks : -1;
}
