// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// safetensors written by all ranks at once, each box in its place.
#include <shardmesh/checkpoint/safetensors_plan.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <span>
#include <utility>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/checkpoints.hpp"
#include "../support/sanitizers.hpp"

namespace safetensors_save_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.safetensors_save");

namespace {

sm::Placement const r = sm::Replicate{};
sm::Placement const s0 = sm::Shard{0};
sm::Placement const s1 = sm::Shard{1};
sm::Placement const s2 = sm::Shard{2};

/// Tensors of many shapes in many layouts; the same elements on every mesh.
template <class Mesh>
sm::StateDict state_of(Mesh const& mesh, float first) {
  sm::StateDict dict;
  int number = 0;
  auto const add = [&](sm::Shape const& shape, sm::PlacementList const& list) {
    sm::Tensor<float> whole(shape);
    std::iota(whole.span().begin(), whole.span().end(), first + static_cast<float>(100 * number));
    dict.insert("t" + std::to_string(number++),
                sm::distribute(whole, mesh, list, sm::DataSource::own));
  };
  add({7, 5}, {r, s0});
  add({4, 6, 5}, {s1, s2});
  add({4, 6, 5}, {s2, s0});
  add({9, 2}, {sm::Placement::strided(0, 3), s0});
  add({3}, {r, r});
  add({0, 3}, {s0, s1});
  add({}, {r, r});
  add({5, 8}, {s1, s1});
  dict.insert("left out", sm::Value(1));
  return dict;
}

sm::StateDict tensors_of(sm::StateDict const& dict) {
  sm::StateDict result;
  for (sm::StateEntry const& entry : dict) {
    if (entry.is_tensor()) {
      result.insert(entry.path, entry.value);
    }
  }
  return result;
}

/// Loads on another mesh; empty if all is right.
std::string loaded_difference(std::string const& path) {
  std::string what = "nothing was loaded";
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {1, 2}, {"a", "b"});
    sm::StateDict dict = tensors_of(state_of(mesh, -1));
    sm::load_any(world, path, dict, {.unexpected = sm::KeyPolicy::error});
    auto const mine = sm::difference(dict, tensors_of(state_of(mesh, 7)));
    std::string all;
    for (std::string const& one : sm::all_gather_text(world, mine)) {
      all += one;
    }
    if (world.rank() == 0) {
      what = all;
    }
  });
  return what;
}

template <class Save>
void save_on(int rows, int columns, Save save) {
  sm::launch(sm::threads{rows * columns}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {rows, columns}, {"a", "b"});
    save(world, state_of(mesh, 7));
  });
}

}  // namespace

TEST_CASE(
    "one file, the same bytes however many ranks write it, and however they share the tensors") {
  test::Scratch const scratch;
  std::string const alone = scratch / "alone.safetensors";
  save_on(1, 1, [&](auto&, sm::StateDict const& dict) { sm::save_safetensors(alone, dict); });
  for (auto const& [rows, columns] : {std::pair{1, 1}, {3, 1}, {2, 2}, {2, 3}, {4, 2}}) {
    std::string const path = scratch / "deep/er.safetensors";
    save_on(rows, columns, [&](auto& world, sm::StateDict const& dict) {
      sm::save_safetensors(world, path, dict);
    });
    CHECK(loaded_difference(path) == "");
    CHECK(test::slurp(path) == test::slurp(alone));
  }
  CHECK(sm::PosixStorage::list(scratch / "deep") == std::vector<std::string>{"er.safetensors"});
}

TEST_CASE("a model of several files has an index, whoever writes it") {
  test::Scratch const scratch;
  for (int const ranks : {1, 3}) {
    auto const files_for = [&](std::uint64_t most) {
      std::string const path = scratch / std::to_string(ranks) + "-" + std::to_string(most);
      save_on(ranks, 1, [&](auto& world, sm::StateDict const& dict) {
        sm::save_safetensors_sharded(world, path, dict, most);
      });
      CHECK(loaded_difference(path) == "");
      return sm::PosixStorage::list(path).size();
    };
    CHECK(files_for(1) == 8);       // a file a tensor, but the empty one takes no room; the index
    CHECK(files_for(700) == 4);     // bytes 140, 480 | 480, 72, 12, 0, 4 | 160; the index
    CHECK(files_for(10'000) == 1);  // no index
  }
  CHECK(test::slurp(scratch / "3-1/model.safetensors.index.json") ==
        test::slurp(scratch / "1-1/model.safetensors.index.json"));
  CHECK(test::slurp(scratch / "3-700/model-00002-of-00003.safetensors") ==
        test::slurp(scratch / "1-700/model-00002-of-00003.safetensors"));
  save_on(2, 1, [&](auto& world, sm::StateDict const& dict) {
    std::string said;
    try {
      sm::save_safetensors_sharded(world, scratch / "1-1", dict, 80);
    } catch (sm::Error const& error) {
      said = error.what();
    }
    CHECK(said.find("exists; give a new directory") != std::string::npos);
  });
}

TEST_CASE("a file for each rank, as PyTorch's sharded variant has them") {
  test::Scratch const scratch;
  save_on(2, 2, [&](auto& world, sm::StateDict const& dict) {
    sm::save_safetensors_by_rank(world, scratch / "shards", dict);
  });
  CHECK(loaded_difference(scratch / "shards") == "");
  auto names = sm::PosixStorage::list(scratch / "shards");
  std::sort(names.begin(), names.end());
  CHECK(names.front() == "shard-00001-model-00001-of-00002.safetensors");
  CHECK(names.back().substr(0, 12) == "shard-00004-");
}

TEST_CASE("what cannot be saved is refused on every rank, and leaves nothing") {
  test::Scratch const scratch;
  std::string const path = scratch / "x.safetensors";
  save_on(2, 1, [&](auto& world, sm::StateDict const& dict) {
    sm::save_safetensors(world, path, dict);
    auto const refusal = [&](sm::StateDict const& bad) {
      try {
        sm::save_safetensors(world, path, bad);
      } catch (sm::Error const& error) {
        return std::string(error.what());
      }
      return std::string("no error");
    };
    auto const mesh = sm::device_mesh(world, {2, 1}, {"a", "b"});
    sm::StateDict bad;
    bad.insert("p", test::unset_tensor(sm::DType::float32, {2}, mesh, {sm::Partial<>{}, r}));
    CHECK(refusal(bad).find("redistribute it") != std::string::npos);
    bad = {};
    bad.insert("c", test::unset_tensor(sm::DType::complex128, {2}, mesh, {s0, r}));
    CHECK(refusal(bad).find("which safetensors files cannot hold") != std::string::npos);
    bad = {};
    bad.insert("__metadata__", test::unset_tensor(sm::DType::float32, {2}, mesh, {s0, r}));
    CHECK(refusal(bad).find("cannot name a tensor") != std::string::npos);
    bad = {};
    bad.insert("own", sm::Tensor<float>(sm::Shape{world.rank() + 1}));
    CHECK(refusal(bad).find("different things as \"own\"") != std::string::npos);
  });
  CHECK(loaded_difference(path) == "");
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}

namespace {

/// Saves with a header of at most so many bytes.
std::string save_with_header(std::string const& path,
                             sm::detail::ModelForm form,
                             std::uint64_t most_header_bytes) {
  std::string said;
  sm::launch(sm::threads{4}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"a", "b"});
    std::string mine;
    try {
      sm::detail::run_save_model(world, path, state_of(mesh, 7), form,
                                 {.header_bytes = most_header_bytes});
    } catch (sm::UnsupportedError const& error) {  // no rank is told by another
      mine = error.what();
    }
    auto const all = sm::all_gather_text(world, mine);
    if (world.rank() == 0) {
      said = all[0];
      CHECK(all == std::vector<std::string>(4, said));
    }
  });
  return said;
}

/// The length of the longest header in a directory.
std::uint64_t longest_header(std::string const& directory) {
  std::uint64_t longest = 0;
  for (std::string const& name : sm::PosixStorage::list(directory)) {
    if (name.ends_with(".safetensors")) {
      std::string const bytes = test::slurp(directory + "/" + name);
      longest =
          std::max(longest, sm::format::load_le<std::uint64_t>(sm::format::as_bytes(bytes), 0));
    }
  }
  return longest;
}

}  // namespace

TEST_CASE(
    "a header that is too large for one file is refused on all ranks before there is a file") {
  using sm::detail::ModelForm;
  test::Scratch const scratch;
  std::string const path = scratch / "one.safetensors";
  CHECK(sm::ModelRoom{}.header_bytes == 100'000'000);
  CHECK(save_with_header(path, ModelForm::one_file, 100'000'000) == "");
  std::uint64_t const needed = longest_header(scratch / "");
  test::fs::remove(path);
  CHECK(save_with_header(path, ModelForm::one_file, needed) == "");
  CHECK(loaded_difference(path) == "");
  test::fs::remove(path);
  std::string const said = save_with_header(path, ModelForm::one_file, needed - 8);
  CHECK(said.find("the safetensors header of " + path + " would be longer than " +
                  std::to_string(needed - 8) + " bytes") != said.npos);
  CHECK(said.find("save_safetensors_sharded") != said.npos);
  CHECK(said.find("--to hf") != said.npos);
  CHECK(sm::PosixStorage::list(scratch / "").empty());
}

TEST_CASE("where there may be several files, one that has a full header is followed by another") {
  using sm::detail::ModelForm;
  test::Scratch const scratch;
  for (ModelForm const form : {ModelForm::hub, ModelForm::shards}) {
    std::string const path = scratch / "model";
    CHECK(save_with_header(path, form, 100'000'000) == "");
    std::uint64_t const longest = longest_header(path);
    std::size_t const files = sm::PosixStorage::list(path).size();
    for (std::uint64_t const most : {longest - 8, longest * 2 / 3}) {
      test::fs::remove_all(path);
      CHECK(save_with_header(path, form, most) == "");
      CHECK(longest_header(path) <= most);
      CHECK(sm::PosixStorage::list(path).size() >= files + (most < longest - 8 ? 1 : 0));
      CHECK(loaded_difference(path) == "");
      sm::SafetensorsCatalog catalog(path);
      CHECK(sm::verify(catalog).damage.empty());
    }
    test::fs::remove_all(path);
    std::string const said = save_with_header(path, form, 40);  // no room for any tensor
    CHECK(said.find("would be longer than 40 bytes") != said.npos);
    CHECK(sm::PosixStorage::list(scratch / "").empty());
  }
}

#if SHARDMESH_TEST_MAY_FORK
TEST_CASE("a rank whose storage fails stops all, and the older file stays") {
  test::Scratch const scratch;
  std::string const path = scratch / "x.safetensors";
  auto const statuses = sm::spawn_processes(3, [&] {
    int status = 1;
    sm::launch(sm::environment{}, [&](auto& world) {
      auto const mesh = sm::device_mesh(world, {3, 1}, {"a", "b"});
      sm::save_safetensors(world, path, state_of(mesh, 7));
      std::signal(SIGXFSZ, SIG_IGN);
      if (world.rank() == 1) {
        rlimit limit{};
        ::getrlimit(RLIMIT_FSIZE, &limit);
        limit.rlim_cur = 100;
        ::setrlimit(RLIMIT_FSIZE, &limit);
      }
      try {
        sm::save_safetensors(world, path, state_of(mesh, 9));
      } catch (sm::Error const& error) {
        status = std::string(error.what()).find("cannot write") != std::string::npos ? 0 : 2;
      }
    });
    return status;
  });
  CHECK(statuses == std::vector<int>(3, 0));
  CHECK(loaded_difference(path) == "");
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}
#endif

namespace {

/// Ranks whose first one meets, between its calls, somebody who takes the files of the save for leftovers.
struct Meddled : sm::ThreadsCommunicator {
  std::function<void()> meddle;

  Meddled() = default;
  Meddled(sm::ThreadsCommunicator const& comm, std::function<void()> what)
      : sm::ThreadsCommunicator(comm), meddle(std::move(what)) {}

  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine, sm::Call const& call = "all_gather") const {
    if (rank() == 0) {
      meddle();
    }
    return sm::ThreadsCommunicator::all_gather(mine, call);
  }
  [[nodiscard]] Meddled split(int color, int key, sm::Call const& call = "split") const {
    return {sm::ThreadsCommunicator::split(color, key, call), meddle};
  }
};

/// Files below `place`, other than `target`, into which elements have been written: `change` once.
void change_written(std::string const& place,
                    std::string const& target,
                    bool& done,
                    std::function<void(std::string const&)> const& change) {
  for (auto const& entry : test::fs::recursive_directory_iterator(place)) {
    std::string const path = entry.path();
    if (done || !entry.is_regular_file() || path.starts_with(target + "/") || path == target) {
      continue;
    }
    std::string const bytes = test::slurp(path);
    if (bytes.size() > 100 && bytes.back() != 0) {  // the header comes after all elements
      change(path);
      done = true;
    }
  }
}

}  // namespace

TEST_CASE("files that somebody has cut off or lengthened in the meantime get no name") {
  for (std::string const& form : std::vector<std::string>{"one file", "hub", "a file a rank"}) {
    for (int const bytes : {-5, 5}) {
      CAPTURE(form);
      CAPTURE(bytes);
      test::Scratch const scratch;
      std::string const target = scratch / (form == "one file" ? "model.safetensors" : "model");
      auto const save = [&](auto const& mesh, auto const& world, float first) {
        sm::Tensor<float> whole({40});
        std::fill(whole.span().begin(), whole.span().end(), first);
        sm::StateDict dict;
        for (char const* const name : {"a", "b"}) {
          dict.insert(name, sm::distribute(whole, mesh, sm::PlacementList{sm::Shard{0}},
                                           sm::DataSource::own));
        }
        if (form == "one file") {
          sm::save_safetensors(world, target, dict);
        } else if (form == "hub") {
          sm::save_safetensors_sharded(world, target, dict, 160, sm::Existing::replace);
        } else {
          sm::save_safetensors_by_rank(world, target, dict);
        }
      };
      bool const replaces = form != "a file a rank";
      bool done = false;
      sm::launch(sm::threads{2}, [&](auto& world) {
        auto const mesh = sm::device_mesh<1>(world, {2});
        if (replaces) {
          save(mesh, world, 1.1F);
        }
        Meddled const meddled(world, [&] {
          change_written(scratch / "", target, done, [&](std::string const& path) {
            auto const size = static_cast<int>(test::fs::file_size(path));
            test::fs::resize_file(path, static_cast<std::uintmax_t>(size + bytes));
          });
        });
        std::string said;
        try {
          save(mesh, meddled, 2.1F);
        } catch (sm::Error const& error) {
          said = error.what();
        }
        CAPTURE(said);
        CHECK(said.find("bytes, ") != said.npos);
        CHECK(said.find("does another job save to the same place?") != said.npos);
      });
      CHECK(done);
      CHECK(sm::PosixStorage::list(scratch / "").size() == (replaces ? 1 : 0));
      if (replaces) {  // what was there is there
        sm::with_catalog(target, [](auto& catalog) {
          CHECK(sm::verify(catalog).damage.empty());
          float first = 0;
          std::memcpy(&first,
                      catalog.read_box("a", 0).bytes.data() + catalog.read_box("a", 0).first,
                      sizeof(first));
          CHECK(first == 1.1F);
        });
      }
    }
  }
}

TEST_CASE("ranks that wait for one that writes a model see it get on, byte for byte") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::StateDict dict;
    dict.insert("rows", sm::distribute(sm::Tensor<float>({600, 500}), mesh,
                                       sm::PlacementList{sm::Shard{0}}, sm::DataSource::own));
    dict.insert("columns", sm::distribute(sm::Tensor<float>({600, 500}), mesh,
                                          sm::PlacementList{sm::Shard{1}}, sm::DataSource::own));
    std::uint64_t const own = 2 * 600 * 500 / 2 * sizeof(float);
    auto const grown = [&](auto save) {
      std::uint64_t const before = world.activity()->state().progress;
      save();
      return world.activity()->state().progress - before;
    };
    CHECK(grown([&] { sm::save_safetensors(world, scratch / "m.safetensors", dict); }) >= own);
    CHECK(grown([&] { sm::save_safetensors_sharded(world, scratch / "hub", dict, 1'300'000); }) >=
          own);
    CHECK(grown([&] { sm::save_safetensors_by_rank(world, scratch / "ranks", dict); }) >= own);
  });
}

TEST_SUITE_END();

}  // namespace safetensors_save_test
