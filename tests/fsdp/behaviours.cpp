// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The behaviour rows on ranks that are threads of this process, tensors in host memory.
#include <cstddef>

#include <shardmesh/comm/threads.hpp>

#include "../support/sample.hpp"

namespace engine {

namespace sm = shardmesh;

using Space = sm::HostMemory;

/// Where sanitizers watch each row runs on some numbers of ranks, the next one on others.
inline std::size_t rows = 0;

template <class Body>
void on_ranks(Body const& body) {
  for (int ranks : test::some_of({1, 3, 4, 5, 6, 7}, 3, ++rows)) {
    sm::launch(sm::threads{ranks}, [&body](sm::ThreadsCommunicator& world) { body(world); });
  }
}

template <class Body>
void on_even_ranks(Body const& body) {
  for (int ranks : test::some_of({2, 4, 6, 8}, 2, ++rows)) {
    sm::launch(sm::threads{ranks}, [&body](sm::ThreadsCommunicator& world) { body(world); });
  }
}

}  // namespace engine

#include "../support/behaviour_cases.hpp"
