// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// State on streams of the user's own: what they have still to write is not read, what they have still to read is not
// written (support/queued_device.hpp plays the device).

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/memory/any_stream.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/state/transfer.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/late_model.hpp"

namespace streams_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("state.streams");

namespace {

using test::LateModel;
using test::QueuedDevice;
using World = sm::ThreadsCommunicator;
using Sharded = sm::Placements<sm::Shard<0>, sm::Shard<1>>;
using Other = sm::Placements<sm::Replicate, sm::Shard<0>>;

constexpr int rounds = 20;

}  // namespace

TEST_CASE("a state is offloaded, gathered and replicated behind the work on the user's stream") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh<2>(world, {2, 2});
    auto const owned = QueuedDevice::make_stream();
    auto const stream = owned.get();
    LateModel<Sharded> model(mesh, {}, stream);
    for (int round = 0; round < rounds; ++round) {
      auto const value = static_cast<float>(round);
      model.set(value, stream);
      CHECK(test::wrong_on_host(sm::state_dict(model, {.cpu_offload = true, .stream = stream}),
                                value) == 0);
      model.set(value + 0.25F, stream);
      sm::StateOptions const full{.full_state_dict = true, .cpu_offload = true, .stream = stream};
      sm::StateDict const whole = sm::state_dict(world, model, full);
      CHECK(whole.empty() == (world.rank() != 0));
      CHECK(test::wrong_on_host(whole, value + 0.25F) == 0);
      model.set(value + 0.5F, stream);
      sm::StateDict const everywhere =
          sm::state_dict(world, model, {.full_state_dict = true, .stream = stream});
      CHECK(test::wrong_on_host(everywhere, value + 0.5F) == 0);
    }
  });
}

TEST_CASE("a state is loaded between the work that was and that comes on the user's stream") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh<2>(world, {2, 2});
    auto const here = QueuedDevice::make_stream();
    auto const there = QueuedDevice::make_stream();
    LateModel<Sharded> source(mesh, {}, here.get());
    LateModel<Sharded> target(mesh, {}, there.get());
    LateModel<Other> resharded(mesh, {}, there.get());
    for (int round = 0; round < rounds; ++round) {
      auto const value = static_cast<float>(round);
      source.set(value, here.get());
      target.set(-1, there.get());  // late: it must not overwrite what is loaded
      resharded.set(-1, there.get());
      sm::StateDict const dict = sm::state_dict(source, {.stream = here.get()});
      sm::load_state_dict(world, target, dict, {.stream = there.get()});
      CHECK(target.wrong(value, there.get()) == 0);
      sm::load_state_dict(world, resharded, dict, {.stream = there.get()});
      CHECK(resharded.wrong(value, there.get()) == 0);

      sm::StateDict const whole =
          sm::state_dict(world, source, {.full_state_dict = true, .stream = here.get()});
      target.set(-2, there.get());
      sm::load_state_dict(world, target, whole, {.full_state_dict = true, .stream = there.get()});
      CHECK(target.wrong(value, there.get()) == 0);
      target.set(-3, there.get());
      sm::load_state_dict(
          world, target, world.rank() == 0 ? whole : sm::StateDict{},
          {.full_state_dict = true, .broadcast_from_rank0 = true, .stream = there.get()});
      CHECK(target.wrong(value, there.get()) == 0);
    }
  });
}

TEST_CASE("a state goes to another mesh between the work on both streams") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh<2>(world, {2, 2});
    auto const here = QueuedDevice::make_stream();
    auto const there = QueuedDevice::make_stream();
    LateModel<Sharded> source(mesh, {}, here.get());
    LateModel<Other> target(mesh, {}, there.get());
    sm::StateDict const from = sm::state_dict(source, {.stream = here.get()});
    sm::StateDict into = sm::state_dict(target, {.stream = there.get()});
    for (int round = 0; round < rounds; ++round) {
      source.set(static_cast<float>(round), here.get());
      target.set(-1, there.get());
      sm::transfer(world, from, into);
      source.set(-2, here.get());  // after it has been read
      CHECK(target.wrong(static_cast<float>(round), there.get()) == 0);
    }
  });
}

TEST_CASE("a stream that has lost its type is found again by its own kind of memory alone") {
  auto const owned = QueuedDevice::make_stream();
  sm::AnyStream const any = owned.get();
  CHECK(any.as<test::QueuedStream>().queue == owned.get().queue);
  CHECK(sm::AnyStream().as<test::QueuedStream>().queue == nullptr);
  CHECK(sm::AnyStream(sm::HostStream{}).as<test::QueuedStream>().queue == nullptr);
  CHECK(any == sm::AnyStream(owned.get()));
  CHECK(!(any == sm::AnyStream()));
}

TEST_SUITE_END();

}  // namespace streams_test
