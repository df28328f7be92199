// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::Placements: each argument must be a placement type whose numbers are static}}
#include <shardmesh/layout/placements.hpp>

namespace sm = shardmesh;

auto legal = sm::placements<sm::Shard<1>, sm::Replicate>.list();

#ifdef EXPECT_ERROR
auto illegal = sm::placements<sm::Shard<>, sm::Replicate>.list();
#endif
