// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::StridedShard: Dim must not be negative}}
#include <shardmesh/layout/placement.hpp>

namespace sm = shardmesh;

sm::Placement legal = sm::StridedShard<1, 2>{};

#ifdef EXPECT_ERROR
sm::Placement illegal = sm::StridedShard<-1, 2>{};
#endif
