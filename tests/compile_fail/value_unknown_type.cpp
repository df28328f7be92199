// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::Value::get: a Value holds bool, std::int64_t, double, std::string, Value::List, Tuple, Dict, Opaque or None}}
#include <vector>

#include <shardmesh/core/value.hpp>

namespace sm = shardmesh;

int legal(sm::Value const& value) {
  return value.as<int>();
}

#ifdef EXPECT_ERROR
auto illegal(sm::Value const& value) {
  return value.as<std::vector<int>>();
}
#endif
