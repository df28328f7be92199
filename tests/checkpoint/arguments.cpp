// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Arguments that must be equal on all ranks: those that are not are refused on every rank, with both sides,
// before anything is read or written.
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../comm/ranks.hpp"
#include "../support/checkpoint_disagreements.hpp"
#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"

namespace arguments_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.arguments");

namespace {

template <class World>
sm::StateDict state_of(World const& world) {
  sm::StateDict dict;
  sm::Tensor<float> const whole(sm::Shape{4, 2});
  dict.insert("w", sm::distribute(whole, sm::device_mesh<1>(world, {world.size()}),
                                  sm::placements<sm::Shard<0>>, sm::DataSource::own));
  return dict;
}

/// Two ranks call `use(world, dict, second)`, of which the second gives another argument. Both get a
/// MismatchError that begins with `who` and shows `first` as rank 0's, `second` as rank 1's.
template <class Use>
void refused(std::string const& who, std::string const& first, std::string const& second, Use use) {
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::StateDict dict = state_of(world);
    std::string const said =
        test::error_of<sm::MismatchError>([&] { use(world, dict, world.rank() == 1); });
    CAPTURE(said);
    CHECK(said.starts_with("shardmesh::" + who + ": ranks disagree; rank 0 has "));
    std::size_t const other = said.find(", rank 1 has ");
    CHECK(said.substr(0, other).find(first) != said.npos);
    CHECK(said.find(second, other) != said.npos);
    world.barrier();  // nobody waits for anybody
  });
}

}  // namespace

TEST_CASE("directories of saves") {
  test::Scratch const scratch;
  std::string const a = scratch / "a";
  std::string const b = scratch / "b";
  refused("save", "directory \"" + a + "\"", "directory \"" + b + "\"",
          [&](auto& world, auto& dict, bool second) { sm::save(world, second ? b : a, dict); });
  refused("AsyncSaver::save", a, b, [&](auto& world, auto& dict, bool second) {
    sm::AsyncSaver saver(world);
    saver.save(second ? b : a, dict).wait();
  });
  auto const safetensors = [&](auto save) {
    refused("save_safetensors", a, b,
            [&](auto& world, auto& dict, bool second) { save(world, second ? b : a, dict); });
  };
  safetensors([](auto&... all) { sm::save_safetensors(all...); });
  safetensors([](auto&... all) { sm::save_safetensors_sharded(all..., 1000); });
  safetensors([](auto&... all) { sm::save_safetensors_by_rank(all...); });
  CHECK(sm::PosixStorage::list(scratch / "").empty());
  sm::launch(sm::threads{2}, [&](auto& world) {  // a slash at the end is no difference
    sm::save(world, world.rank() == 0 ? a : a + "/", state_of(world));
  });
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}

TEST_CASE("how a model of safetensors is saved") {
  test::Scratch const scratch;
  std::string const path = scratch / "model";
  refused("save_safetensors", "most_bytes 100", "most_bytes 200",
          [&](auto& world, auto& dict, bool second) {
            sm::save_safetensors_sharded(world, path, dict, second ? 200 : 100);
          });
  refused("save_safetensors", "existing refuse", "existing replace",
          [&](auto& world, auto& dict, bool second) {
            sm::save_safetensors_sharded(world, path, dict, 100,
                                         second ? sm::Existing::replace : sm::Existing::refuse);
          });
  refused("save_safetensors", "as several files", "as a file a rank",
          [&](auto& world, auto& dict, bool second) {
            if (second) {
              sm::save_safetensors_by_rank(world, path, dict);
            } else {
              sm::save_safetensors_sharded(world, path, dict, 100);
            }
          });
  CHECK(sm::PosixStorage::list(scratch / "").empty());
}

TEST_CASE("options of loads") {
  test::Scratch const scratch;
  std::string const path = scratch / "run";
  std::string const model = scratch / "model";
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::save(world, path, state_of(world));
    sm::save_safetensors_by_rank(world, model, state_of(world));
  });
  auto const check = [&](std::string const& first, std::string const& second,
                         sm::LoadOptions const& other) {
    auto const options = [&](bool is_second) { return is_second ? other : sm::LoadOptions{}; };
    refused("load", first, second, [&](auto& world, auto& dict, bool is_second) {
      sm::load(world, path, dict, options(is_second));
    });
    for (std::string const& from : {path, model}) {
      refused("load", first, second, [&](auto& world, auto& dict, bool is_second) {
        sm::load_any(world, from, dict, options(is_second));
      });
    }
    refused("load", first, second, [&](auto& world, auto& dict, bool is_second) {
      sm::load_from(world, [&] { return sm::SafetensorsCatalog(model); }, dict, options(is_second));
    });
  };
  check("dtype error", "dtype cast", {.dtype = sm::DTypePolicy::cast});
  check("missing error", "missing collect", {.missing = sm::KeyPolicy::collect});
  check("unexpected ignore", "unexpected log", {.unexpected = sm::KeyPolicy::log});
  check("round_bytes 268435456", "round_bytes 8", {.round_bytes = 8});
}

TEST_CASE("options of savers in the background") {
  auto const check = [](std::string const& first, std::string const& second,
                        sm::AsyncOptions const& other) {
    refused("AsyncSaver", first, second, [&](auto& world, auto&, bool is_second) {
      sm::AsyncSaver const saver(world, is_second ? other : sm::AsyncOptions{});
    });
  };
  check("when_busy wait", "when_busy refuse", {.when_busy = sm::WhenBusy::refuse});
  check("snapshot same", "snapshot host", {.snapshot = sm::SnapshotSpace::host});
}

TEST_CASE("root, rules and steps of managers") {
  test::Scratch const scratch;
  std::string const root = scratch / "run";
  using Rules = sm::Retention;
  auto const check = [&](std::string const& first, std::string const& second, Rules const& other) {
    refused("CheckpointManager", first, second, [&](auto& world, auto&, bool is_second) {
      sm::CheckpointManager const manager(world, root, is_second ? other : Rules{});
    });
  };
  check("last 1", "last 2", {.last = 2});
  check("every 0", "every 5", {.every = 5});
  check("best 0", "best 1", {.best = 1});
  check("lower_is_better true", "lower_is_better false", {.lower_is_better = false});
  check("whole_directories false", "whole_directories true", {.whole_directories = true});
  refused("CheckpointManager", "root \"" + root + "\"", "root \"" + root + "2\"",
          [&](auto& world, auto&, bool second) {
            sm::CheckpointManager const manager(world, second ? root + "2" : root + "/");
          });
  auto const step = [&](std::string const& name, std::int64_t other, auto use) {
    refused("CheckpointManager::" + name, "step 3", "step " + std::to_string(other),
            [&](auto& world, auto& dict, bool second) {
              sm::CheckpointManager manager(world, root);
              use(manager, second ? other : 3, dict);
            });
  };
  for (std::int64_t const other : {4, -4}) {
    step("save", other, [](auto& manager, std::int64_t at, auto& dict) { manager.save(at, dict); });
    step("forget_after", other,
         [](auto& manager, std::int64_t at, auto&) { manager.forget_after(at); });
    step("note_metric", other,
         [](auto& manager, std::int64_t at, auto&) { manager.note_metric(at, 1.0); });
  }
  CHECK_FALSE(sm::PosixStorage::exists(root));
}

TEST_CASE(
    "another dtype or global shape of a key on one rank leaves the older checkpoint as it is") {
  test::Scratch const scratch;
  std::string const path = scratch / "run";
  sm::launch(sm::threads{2}, [&](auto& world) { sm::save(world, path, state_of(world)); });
  std::string const before = test::slurp(path + "/.metadata");
  sm::launch(sm::threads{2}, [&](auto& world) {
    for (bool const shape : {false, true}) {
      sm::StateDict dict;
      if (world.rank() == 0) {
        dict.insert("w", sm::Tensor<float>(sm::Shape{4, 2}));
      } else if (shape) {
        dict.insert("w", sm::Tensor<float>(sm::Shape{2, 4}));
      } else {
        dict.insert("w", sm::Tensor<std::int32_t>(sm::Shape{4, 2}));
      }
      std::string const said = test::error_of<sm::ShapeError>([&] { sm::save(world, path, dict); });
      CHECK(said.find("ranks 0 and 1 offer different things as \"w\"") != said.npos);
    }
  });
  CHECK(test::slurp(path + "/.metadata") == before);
}

TEST_CASE("ranks in different calls hear the names that they have called") {
  test::Scratch const scratch;
  std::string const said = test::error_of<sm::MismatchError>([&] {
    sm::launch(sm::threads{2}, [&](auto& world) {
      sm::StateDict dict = state_of(world);
      if (world.rank() == 0) {
        sm::save(world, scratch / "run", dict);
      } else {
        sm::load(world, scratch / "run", dict);
      }
    });
  });
  CHECK(said.find("rank 0 is in save") != said.npos);
  CHECK(said.find("rank 1 is in load") != said.npos);
}

TEST_CASE("threads, sockets: ranks that do not save or load the same are told which") {
  test::Scratch const scratch;
  auto const check = [&](std::string const& engine, auto const& run) {
    for (int const ranks : {2, 3}) {
      std::string const folder = scratch / (engine + std::to_string(ranks));
      sm::PosixStorage::make_directories(folder);
      std::vector<std::string> faults(static_cast<std::size_t>(ranks));
      std::vector<std::size_t> pairs(static_cast<std::size_t>(ranks));
      run(ranks, [&](auto const& comm) {
        auto const me = static_cast<std::size_t>(comm.rank());
        faults[me] = test::fault_of_checkpoints(comm, folder, pairs[me]);
        if (!faults[me].empty()) {
          throw sm::CommError(faults[me]);
        }
      });
      CHECK(faults == std::vector<std::string>(static_cast<std::size_t>(ranks)));
      CHECK(pairs == std::vector<std::size_t>(static_cast<std::size_t>(ranks), 110));
      MESSAGE(pairs[0] << " disagreements of " << ranks << " ranks on " << engine);
      CHECK_FALSE(sm::PosixStorage::exists(folder + "/a"));
    }
  };
  check("threads",
        [](int ranks, auto body) { sm::launch(sm::threads{ranks, test::patience}, body); });
  check("sockets", [](int ranks, auto body) {
    CHECK(test::run_sockets(ranks, test::patience, body) ==
          test::Texts(static_cast<std::size_t>(ranks), "no error"));
  });
}

TEST_SUITE_END();

}  // namespace arguments_test
