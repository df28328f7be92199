// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <barrier>

#include <shardmesh/core/counters.hpp>

namespace test {

/// Ranks, all of them threads of this process, meet here without being counted.
using Meeting = std::barrier<>;

/// What all ranks do in `part`.
template <class F>
shardmesh::Counters done_in(Meeting& meeting, F&& part) {
  meeting.arrive_and_wait();
  shardmesh::Counters const before = shardmesh::counters();
  meeting.arrive_and_wait();
  part();
  meeting.arrive_and_wait();
  shardmesh::Counters const done = shardmesh::counters() - before;
  meeting.arrive_and_wait();
  return done;
}

}  // namespace test
