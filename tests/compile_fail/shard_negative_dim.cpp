// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::Shard: a static dimension must not be negative}}
#include <shardmesh/layout/placement.hpp>

namespace sm = shardmesh;

sm::Placement legal = sm::Shard{-1};

#ifdef EXPECT_ERROR
sm::Placement illegal = sm::Shard<-1>{};
#endif
