// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::all_gather_value: T must be trivially copyable; send bytes with all_gather instead}}
#include <string>

#include <shardmesh/comm/threads.hpp>

namespace sm = shardmesh;

auto legal(sm::ThreadsCommunicator const& comm) {
  return sm::all_gather_value(comm, 1);
}

#ifdef EXPECT_ERROR
auto illegal(sm::ThreadsCommunicator const& comm) {
  return sm::all_gather_value(comm, std::string("text"));
}
#endif
