// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::StridedShard: SplitFactor must be at least 1}}
#include <shardmesh/layout/placement.hpp>

namespace sm = shardmesh;

sm::Placement legal = sm::StridedShard<0, 2>{};

#ifdef EXPECT_ERROR
sm::Placement illegal = sm::StridedShard<0, 0>{};
#endif
