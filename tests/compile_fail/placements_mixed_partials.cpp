// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::Placements: partial placements of one tensor must use one operation \(sum and avg may be mixed\)}}
#include <shardmesh/layout/placements.hpp>

namespace sm = shardmesh;

auto legal = sm::placements<sm::Partial<>, sm::Partial<sm::ReduceOp::avg>>.list();

#ifdef EXPECT_ERROR
auto illegal = sm::placements<sm::Partial<>, sm::Partial<sm::ReduceOp::max>>.list();
#endif
