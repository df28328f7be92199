// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/reduce_op.hpp>

#include <doctest/doctest.h>

namespace reduce_op_test {

namespace sm = shardmesh;

static_assert(to_string(sm::ReduceOp::sum) == "sum");

TEST_SUITE_BEGIN("core.reduce_op");

TEST_CASE("operations have the names of PyTorch") {
  CHECK(to_string(sm::ReduceOp::avg) == "avg");
  CHECK(to_string(sm::ReduceOp::min) == "min");
  CHECK(to_string(sm::ReduceOp::max) == "max");
  CHECK(to_string(sm::ReduceOp::product) == "product");
}

TEST_SUITE_END();

}  // namespace reduce_op_test
