// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A load reads one checkpoint: while others save over it, when its files are of several saves, and when
// ranks look at different ones.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/checkpoints.hpp"
#include "damage.hpp"

namespace one_checkpoint_test {

namespace sm = shardmesh;

using test::failure_of;

TEST_SUITE_BEGIN("checkpoint.one");

namespace {

constexpr int tensors = 5;

/// Tensors and, unless the format has none, a plain value that all hold the number of a step.
template <class Mesh>
sm::StateDict state_of(Mesh const& mesh, float step, bool values = true) {
  sm::StateDict dict;
  for (int i = 0; i < tensors; ++i) {
    sm::Tensor<float> whole(sm::Shape{8, 3});
    std::fill(whole.span().begin(), whole.span().end(), step);
    dict.insert("layer" + std::to_string(i),
                sm::distribute(whole, mesh, sm::placements<sm::Shard<0>>, sm::DataSource::own));
  }
  if (values) {
    dict.insert("step", sm::Value(step));
  }
  return dict;
}

/// The step that a state holds in every element; nothing if it holds several.
float step_in(sm::StateDict const& dict) {
  std::vector<float> all;
  for (sm::StateEntry const& entry : dict) {
    if (!entry.is_tensor()) {
      sm::Value const value = entry.plain();
      all.push_back(static_cast<float>(*value.get<double>()));
      continue;
    }
    auto const bytes = entry.tensor().local_bytes();
    std::vector<float> elements(bytes.size() / sizeof(float));
    std::memcpy(elements.data(), bytes.data(), bytes.size());
    all.insert(all.end(), elements.begin(), elements.end());
  }
  bool const same = std::all_of(all.begin(), all.end(), [&](float one) { return one == all[0]; });
  return same ? all[0] : -1;
}

enum class Form { dcp, hub };

void save_step(std::string const& path, float step, Form form, int ranks = 2) {
  sm::launch(sm::threads{ranks}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {ranks});
    if (form == Form::dcp) {
      sm::save(world, path, state_of(mesh, step));
    } else {
      sm::save_safetensors_sharded(world, path, state_of(mesh, step, false), 100,
                                   sm::Existing::replace);
    }
  });
}

/// The step that two ranks load; -1 for a mixture.
float load_step(std::string const& path, Form form) {
  std::vector<float> steps(2, -1);
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::StateDict dict = state_of(mesh, 0, form == Form::dcp);
    sm::load_any(world, path, dict);
    steps[static_cast<std::size_t>(world.rank())] = step_in(dict);
  });
  return steps[0] == steps[1] ? steps[0] : -1;
}

/// SHARDMESH_LOADS asks for more.
int loads_wanted() {
  char const* const wanted = std::getenv("SHARDMESH_LOADS");
  return wanted == nullptr ? 150 : std::atoi(wanted);
}

/// Saves over `target` for ever and loads `path`, which leads there.
void load_during_saves(std::string const& target, std::string const& path, Form form) {
  save_step(target, 1, form);
  std::atomic<bool> done{false};
  std::atomic<int> saves{0};
  std::thread saver([&] {
    for (int step = 2; !done; ++step) {
      save_step(target, static_cast<float>(step), form);
      saves = step;
    }
  });
  int mixed = 0;
  int refused = 0;
  int backwards = 0;
  float last = 0;
  int const loads = loads_wanted();
  for (int i = 0; i < loads || saves < loads / 10; ++i) {
    float held = last;
    auto const failure = failure_of([&] { held = load_step(path, form); });
    if (!failure.kind.empty()) {
      CAPTURE(failure.what);
      CHECK(failure.says("replaced"));
      ++refused;
    }
    mixed += held < 0 ? 1 : 0;
    backwards += held >= 0 && held < last ? 1 : 0;
    last = held < 0 ? last : held;
  }
  done = true;
  saver.join();
  MESSAGE(loads << " loads during " << saves.load() << " saves: " << mixed << " mixed, " << refused
                << " refused");
  CHECK(mixed == 0);
  CHECK(backwards == 0);
  CHECK(refused <= loads / 10);
  CHECK(last > 0);
}

/// Loads what `path_of(rank)` names on each of two ranks, by a catalog of type C.
template <class C, class PathOf>
test::Failure load_apart(PathOf path_of) {
  return failure_of([&] {
    sm::launch(sm::threads{2}, [&](auto& world) {
      auto const mesh = sm::device_mesh<1>(world, {2});
      sm::StateDict dict = state_of(mesh, 0, false);
      sm::load_from(world, [&] { return C(path_of(world.rank())); }, dict);
    });
  });
}

}  // namespace

TEST_CASE("loads while another job saves over the checkpoint read one of its states") {
  test::Scratch const scratch;
  load_during_saves(scratch / "run", scratch / "run", Form::dcp);
}

TEST_CASE("loads through a link while another job saves over what it leads to") {
  test::Scratch const scratch;
  test::fs::create_directory_symlink("step-20", scratch / "latest");
  load_during_saves(scratch / "step-20", scratch / "latest", Form::dcp);
}

TEST_CASE("loads of safetensors while another job replaces the model") {
  test::Scratch const scratch;
  load_during_saves(scratch / "model", scratch / "model", Form::hub);
}

TEST_CASE("a checkpoint that is replaced after it was opened is read whole, or the new one is") {
  test::Scratch const scratch;
  std::string const path = scratch / "run";
  save_step(path, 1, Form::dcp);
  int opened = 0;
  int most = 1;
  auto const load = [&] {
    float held = -1;
    sm::launch(sm::threads{1}, [&](auto& world) {
      sm::StateDict dict = state_of(sm::device_mesh<1>(world, {1}), 0);
      auto const open = [&] {
        sm::DcpCatalog<> catalog(path);
        if (opened++ < most) {
          save_step(path, static_cast<float>(1 + opened), Form::dcp);
        }
        return catalog;
      };
      try {
        sm::load_from(world, open, dict);
      } catch (...) {
        CHECK(step_in(dict) == 0);
        throw;
      }
      held = step_in(dict);
    });
    return held;
  };
  CHECK(load() == 2);
  CHECK(opened == 2);
  opened = 0;
  most = 1 << 30;
  auto const never = failure_of([&] { static_cast<void>(load()); });
  CHECK(never.kind == "IoError");
  CHECK(never.says(path + " was replaced or removed while it was read"));
  CHECK(opened == sm::detail::most_attempts);
  most = 0;
  auto const gone = failure_of([&] {
    sm::launch(sm::threads{2}, [&](auto& world) {
      sm::StateDict dict = state_of(sm::device_mesh<1>(world, {2}), 0);
      auto const open = [&] {
        sm::DcpCatalog<> catalog(path);
        world.barrier();
        test::fs::remove_all(world.rank() == 0 ? path : scratch / "none");
        world.barrier();
        return catalog;
      };
      sm::load_from(world, open, dict);
    });
  });
  CHECK(gone.says("there is no " + path));
}

TEST_CASE(
    "a rank that finds another checkpoint in the place of the first reads it with all others") {
  test::Scratch const scratch;
  std::string const path = scratch / "run";
  for (Form const form : {Form::dcp, Form::hub}) {
    test::fs::remove_all(path);
    save_step(path, 1, form);
    std::atomic<int> attempts{0};
    sm::launch(sm::threads{2}, [&](auto& world) {
      auto const mesh = sm::device_mesh<1>(world, {2});
      sm::StateDict dict = state_of(mesh, 0, false);
      auto const load_with = [&]<class C>() {
        auto const open = [&] {
          bool const first = attempts++ < 2;
          std::optional<C> catalog;
          if (world.rank() == 0) {
            catalog.emplace(path);
          }
          world.barrier();
          if (world.rank() == 1) {
            if (first) {
              save_step(path, 2, form);
            }
            catalog.emplace(path);
          }
          world.barrier();
          return std::move(*catalog);
        };
        sm::load_from(world, open, dict);
      };
      if (form == Form::dcp) {
        load_with.template operator()<sm::DcpCatalog<>>();
      } else {
        load_with.template operator()<sm::SafetensorsCatalog>();
      }
      CHECK(step_in(dict) == 2);
    });
    CHECK(attempts == 4);
  }
}

TEST_CASE("ranks that load from the directories of two steps are refused, both are named") {
  test::Scratch const scratch;
  auto const step = [&](int rank) { return scratch / ("step-" + std::to_string(10 * (rank + 1))); };
  auto const refuses = [&](test::Failure const& failure) {
    return failure.kind == "MismatchError" && failure.says("rank 0 reads " + step(0)) &&
           failure.says("rank 1 reads " + step(1));
  };
  for (int rank = 0; rank < 2; ++rank) {
    save_step(step(rank), static_cast<float>(rank + 1), Form::dcp);
  }
  CHECK(refuses(load_apart<sm::DcpCatalog<>>(step)));
  auto const by_path = failure_of([&] {
    sm::launch(sm::threads{2}, [&](auto& world) {
      sm::StateDict dict = state_of(sm::device_mesh<1>(world, {2}), 0);
      sm::load(world, step(world.rank()), dict);
    });
  });
  CHECK(refuses(by_path));
  for (int rank = 0; rank < 2; ++rank) {  // as PyTorch leaves them
    test::fs::remove(step(rank) + "/.shardmesh");
  }
  CHECK(refuses(load_apart<sm::DcpCatalog<>>(step)));
  for (int rank = 0; rank < 2; ++rank) {
    test::fs::remove_all(step(rank));
    save_step(step(rank), static_cast<float>(rank + 1), Form::hub);
  }
  CHECK(refuses(load_apart<sm::SafetensorsCatalog>(step)));
}

TEST_CASE("ranks may load from copies of one checkpoint, and by different names of it") {
  test::Scratch const scratch;
  for (Form const form : {Form::dcp, Form::hub}) {
    test::fs::remove_all(scratch / "run");
    test::fs::remove_all(scratch / "copy");
    save_step(scratch / "run", 3, form);
    test::fs::copy(scratch / "run", scratch / "copy", test::fs::copy_options::recursive);
    sm::launch(sm::threads{2}, [&](auto& world) {
      sm::StateDict dict = state_of(sm::device_mesh<1>(world, {2}), 0, false);
      sm::load_any(world, world.rank() == 0 ? scratch / "run" : scratch / "./copy", dict);
      CHECK(step_in(dict) == 3);
    });
  }
}

TEST_CASE("load sees data of another step, swapped and doubled files") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  std::string const other = scratch / "other";
  save_step(other, 2, Form::dcp);
  auto const load = [&](auto&& damage) {
    test::fs::remove_all(run);
    sm::launch(sm::threads{2}, [&](auto& world) {  // parts that differ between ranks
      sm::StateDict dict;
      sm::Tensor<float> whole(sm::Shape{8, 3});
      for (std::size_t i = 0; i < whole.span().size(); ++i) {
        whole.span()[i] = static_cast<float>(i);
      }
      auto const mesh = sm::device_mesh<1>(world, {2});
      for (int i = 0; i < tensors; ++i) {
        dict.insert("layer" + std::to_string(i),
                    sm::distribute(whole, mesh, sm::placements<sm::Shard<0>>, sm::DataSource::own));
      }
      dict.insert("step", sm::Value(1.0));
      dict.insert("rank" + std::to_string(world.rank()), sm::Value(world.rank()));
      sm::save(world, run, dict);
    });
    damage();
    return failure_of([&] {
      sm::launch(sm::threads{2}, [&](auto& world) {
        sm::StateDict dict = state_of(sm::device_mesh<1>(world, {2}), -5, false);
        try {
          sm::load(world, run, dict);
        } catch (...) {
          CHECK(step_in(dict) == -5);
          throw;
        }
      });
    });
  };
  auto const copy = [](std::string const& from, std::string const& to) {
    test::fs::copy_file(from, to, test::fs::copy_options::overwrite_existing);
  };
  std::string const zero = run + "/__0_0.distcp";
  std::string const one = run + "/__1_0.distcp";
  CHECK(load([] {}).kind.empty());
  auto const bound = [](test::Failure const& failure) {
    return failure.says(".distcp") &&
           (failure.says("of another save, or was swapped") || failure.says("of another save?"));
  };
  CHECK(bound(load([&] { copy(other + "/__1_0.distcp", one); })));
  CHECK(bound(load([&] { copy(other + "/__0_0.distcp", zero); })));
  CHECK(bound(load([&] { copy(zero, one); })));
  CHECK(bound(load([&] { copy(one, zero); })));
  CHECK(bound(load([&] {
    test::fs::rename(zero, run + "/x");
    test::fs::rename(one, zero);
    test::fs::rename(run + "/x", one);
  })));
  CHECK(bound(load([&] { test::fs::resize_file(one, test::fs::file_size(one) + 1); })));
}

TEST_CASE("load sees the data of another step in items of the same size, and in plain values") {
  test::Scratch const scratch;
  save_step(scratch / "a", 1, Form::dcp);
  save_step(scratch / "b", 2, Form::dcp);
  for (char const* const file : {"/__0_0.distcp", "/__1_0.distcp"}) {
    test::fs::remove_all(scratch / "run");
    test::fs::copy(scratch / "a", scratch / "run");
    REQUIRE(test::fs::file_size(scratch / "a" + file) == test::fs::file_size(scratch / "b" + file));
    test::fs::copy_file(scratch / "b" + file, scratch / "run" + file,
                        test::fs::copy_options::overwrite_existing);
    auto const failure =
        failure_of([&] { static_cast<void>(load_step(scratch / "run", Form::dcp)); });
    CHECK(failure.says("of another save, or was swapped"));
    CHECK(failure.says(file));
  }
  test::fs::remove_all(scratch / "run");
  test::fs::copy(scratch / "a", scratch / "run");
  test::fs::copy_file(scratch / "b/__0_0.distcp", scratch / "run/__0_0.distcp",
                      test::fs::copy_options::overwrite_existing);
  auto const value = failure_of([&] {
    sm::launch(sm::threads{1}, [&](auto& world) {
      sm::StateDict dict;
      dict.insert("step", sm::Value());
      sm::load(world, scratch / "run", dict);
    });
  });
  CHECK(value.kind == "CorruptError");
  CHECK(value.says("\"step\""));
}

TEST_SUITE_END();

}  // namespace one_checkpoint_test
