// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Saves and loads of tensors that the user's own streams write and read (support/queued_device.hpp plays the device).
#include <atomic>
#include <chrono>
#include <thread>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/state/load_state_dict.hpp>

#include "../comm/ranks.hpp"
#include "../support/checkpoints.hpp"
#include "../support/late_model.hpp"

namespace streams_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.streams");

namespace {

using World = sm::ThreadsCommunicator;
using Sharded = test::LateModel<sm::Placements<sm::Shard<0>, sm::Shard<1>>>;
using Other = test::LateModel<sm::Placements<sm::Replicate, sm::Shard<0>>>;

}  // namespace

TEST_CASE("a save has what the user's stream has written, a load comes after what it has still to "
          "write") {
  test::Scratch const scratch;
  sm::launch(sm::threads{4}, [&](World& world) {
    auto const mesh = sm::device_mesh<2>(world, {2, 2});
    auto const here = test::QueuedDevice::make_stream();
    auto const there = test::QueuedDevice::make_stream();
    Sharded source(mesh, {}, here.get());
    Other target(mesh, {}, there.get());
    sm::StateDict const from = sm::state_dict(source, {.stream = here.get()});
    sm::StateDict into = sm::state_dict(target, {.stream = there.get()});
    for (int round = 0; round < 5; ++round) {
      auto const value = static_cast<float>(round);
      source.set(value, here.get());
      sm::save(world, scratch / "dcp", from);
      source.set(value + 0.5F, here.get());
      sm::save_safetensors(world, scratch / "model.safetensors", from);
      source.set(-1, here.get());
      target.set(-2, there.get());
      sm::load(world, scratch / "dcp", into);
      CHECK(target.wrong(value, there.get()) == 0);
      target.set(-3, there.get());
      sm::load_any(world, scratch / "model.safetensors", into);
      CHECK(target.wrong(value + 0.5F, there.get()) == 0);
    }
  });
}

TEST_CASE("a background save has what was there at its call, and its writer leaves the user's "
          "stream alone") {
  test::Scratch const scratch;
  sm::launch(sm::threads{4}, [&](World& world) {
    auto const mesh = sm::device_mesh<2>(world, {2, 2});
    auto const here = test::QueuedDevice::make_stream();
    Sharded source(mesh, {}, here.get());
    sm::StateDict dict = sm::state_dict(source, {.stream = here.get()});
    sm::AsyncSaver saver(world);
    for (int round = 0; round < 5; ++round) {
      auto const value = static_cast<float>(round);
      source.set(value, here.get());
      auto const saving = saver.save(scratch / "async", dict);
      std::atomic<bool> saved = false;
      std::atomic<bool> held_up = false;
      here.get().get().push([&] {  // a long kernel of the training
        auto const end = std::chrono::steady_clock::now() + test::patience;
        while (!saved && !held_up) {
          held_up = std::chrono::steady_clock::now() > end;
          std::this_thread::yield();
        }
      });
      source.set(-1, here.get());
      saving.wait();
      saved = true;
      here.get().synchronize();
      CHECK(!held_up);
      source.set(-2, here.get());
      sm::load(world, scratch / "async", dict);
      CHECK(source.wrong(value, here.get()) == 0);
    }
  });
}

TEST_SUITE_END();

}  // namespace streams_test
