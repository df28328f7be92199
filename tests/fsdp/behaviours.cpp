// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The behaviour rows on ranks that are threads of this process, tensors in host memory.
#include <shardmesh/comm/threads.hpp>

namespace engine {

namespace sm = shardmesh;

using Space = sm::HostMemory;

template <class Body>
void on_ranks(Body const& body) {
  for (int ranks : {1, 3, 4, 5, 6, 7}) {
    sm::launch(sm::threads{ranks}, [&body](sm::ThreadsCommunicator& world) { body(world); });
  }
}

template <class Body>
void on_even_ranks(Body const& body) {
  for (int ranks : {2, 4, 6, 8}) {
    sm::launch(sm::threads{ranks}, [&body](sm::ThreadsCommunicator& world) { body(world); });
  }
}

}  // namespace engine

#include "../support/behaviour_cases.hpp"
