// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A second translation unit that includes everything: both must link together; compiled separate.py's way, too.
#include <shardmesh/checkpoint.hpp>
#include <shardmesh/shardmesh.hpp>

int count_shards();

int count_shards() {
  shardmesh::Layout const layout({7, 5}, {2, 2}, {shardmesh::Replicate{}, shardmesh::Shard{0}});
  return static_cast<int>(layout.ranks());
}
