// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// One of four ranks ends in the middle of training; the three others go on with what they have in memory. Hybrid
// sharding keeps every shard twice, so the replica that is still whole is the whole state: it is transferred to a mesh of
// the survivors, without a file.
//
//   shrink [threads|processes|gpus] [RANK that ends] [STEP in which it does]
//
// gpus: processes with tensors in device memory that travel by NCCL; build shrink_nccl. SHARDMESH_SHARE_DEVICES=1 runs it
// on fewer than four GPUs.
//
// The proof: three ranks that load a checkpoint of that step, written by four, train to the same
// bits.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <type_traits>

#include <shardmesh/shardmesh.hpp>

#include "support/shrink.hpp"

namespace {

namespace sm = shardmesh;
using shrink::Case;
using shrink::Kept;

/// What the survivors hold, on a mesh of theirs: the replica that lost nothing.
template <class Comm>
sm::StateDict whole_replica(Comm const& world, Case const& what, sm::StateDict const& mine) {
  int const first = what.ends < 2 ? 2 : 0;  // of the ranks of that replica, before
  auto const now = [&](int rank) { return rank > what.ends ? rank - 1 : rank; };
  auto const line = sm::device_mesh<1>(world, {2}, {now(first), now(first + 1)}, {"shard"});
  sm::StateDict state;
  for (sm::StateEntry const& entry : mine) {
    if (!entry.is_tensor() || !entry.tensor().is_distributed()) {
      state.insert(entry.path, entry.value);
      continue;
    }
    sm::Layout const layout(entry.tensor().shape(), {2}, {sm::Shard{0}});
    sm::Tensor<float> part(line.is_member() ? entry.tensor().local_shape() : sm::Shape{0});
    if (line.is_member()) {
      sm::AnyTensor(part).copy_from(entry.tensor());
    }
    state.insert(entry.path,
                 sm::DistTensor<float, std::remove_const_t<decltype(line)>>(line, layout, part));
  }
  return state;
}

/// The job on the three that are left, from memory (`kept`) or from the checkpoint (nullptr).
/// @returns a number that stands for the state at the end.
template <class Comm>
std::uint64_t train_on_three(Comm const& world, Case const& what, Kept* kept) {
  auto const mesh = sm::device_mesh(world, {3}, {"shard"});
  shrink::Trainer<std::remove_const_t<decltype(mesh)>> trainer(mesh, false);
  int first = what.step - 1;
  if (kept == nullptr) {
    trainer.load(world, what.folder + "/before");
  } else {
    for (int const done : sm::all_gather_value(world, kept->done)) {
      first = std::min(first, done);
    }
    auto into = trainer.state();
    auto on_host = sm::offloaded(into);  // as what was kept
    sm::transfer(world,
                 whole_replica(world, what, kept->states[static_cast<std::size_t>(first % 2)]),
                 on_host);
    sm::load_state_dict(world, into, on_host);
  }
  Kept later;
  shrink::train(trainer, first, later, [](int) {});
  return sm::checksum(world, trainer.state());
}

}  // namespace

int main(int argc, char** argv) try {
  Case const what = shrink::read_case(argc, argv);
  shrink::Scratch const scratch(what.folder);
  if (shrink::lacks_gpu(what)) {
    std::puts("SKIP: no usable GPU on this machine");
    return 77;
  }
  bool const good = shrink::run(
      what, [&](auto const& world, Kept* kept) { return train_on_three(world, what, kept); });
  std::printf(good ? "The survivors went on to the same bits.\n"
                   : "The survivors DIFFER, or did not go on.\n");
  return good ? 0 : 1;
} catch (std::exception const& error) {
  std::fprintf(stderr, "shrink: %s\n", error.what());
  return 1;
}
