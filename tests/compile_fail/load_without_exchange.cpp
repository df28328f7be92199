// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::load: the ranks of a load pass on what they read; give the communicator an exchange<HostMemory>}}
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/state/state_dict.hpp>

#include "../support/alone.hpp"

namespace sm = shardmesh;

void legal(sm::StateDict const& state) {
  sm::save(test::Alone(), "checkpoint", state);
}

#ifdef EXPECT_ERROR
void illegal(sm::StateDict& state) {
  sm::load(test::Alone(), "checkpoint", state);
}
#endif
