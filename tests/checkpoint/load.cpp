// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Loading together: every item is read once and passed on, in rounds; what differs is treated as asked.
#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/checkpoint/load_plan.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/state/policy.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "../support/descriptors.hpp"
#include "../support/errors.hpp"
#include "../support/sanitizers.hpp"

namespace load_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.load");

namespace {

sm::Placement const r = sm::Replicate{};
sm::Placement const s0 = sm::Shard{0};
sm::Placement const s1 = sm::Shard{1};

template <class T, class Mesh>
sm::AnyTensor counted(sm::Shape const& shape,
                      Mesh const& mesh,
                      sm::PlacementList const& list,
                      int first) {
  sm::Tensor<T> whole(shape);
  for (std::size_t i = 0; i < whole.span().size(); ++i) {
    whole.span()[i] = T(static_cast<float>(first) + static_cast<float>(i));
  }
  return sm::distribute(whole, mesh, test::fitting(list, shape), sm::DataSource::own);
}

template <class Mesh>
sm::StateDict state_of(Mesh const& mesh, sm::PlacementList const& list, int first) {
  sm::StateDict dict;
  for (int i = 0; i < 6; ++i) {
    dict.insert("w" + std::to_string(i), counted<float>({9 + i, 5}, mesh, list, first + i));
  }
  dict.insert("bias", counted<float>({7}, mesh, list, first));
  dict.insert("step", sm::Value(first));
  dict.insert("name", sm::Value("run"));
  return dict;
}

/// Bytes of all items of a checkpoint.
std::uint64_t item_bytes(std::string const& directory) {
  std::uint64_t bytes = 0;
  sm::DcpCatalog<> const catalog(directory);
  for (auto const& entry : catalog.metadata().entries) {
    if (entry.bytes() != nullptr) {
      bytes += entry.bytes()->storage.length;
      continue;
    }
    for (auto const& chunk : entry.tensor()->chunks) {
      bytes += chunk.storage->length;
    }
  }
  return bytes;
}

template <class World>
std::uint64_t total(World const& world, std::uint64_t mine) {
  auto const all = sm::all_gather_value(world, mine);
  return std::accumulate(all.begin(), all.end(), std::uint64_t{0});
}

/// Loads what was saved into each of some layouts; empty if every byte was read once and all is right.
template <class World>
std::string load_once(World const& world, std::string const& directory, std::uint64_t round_bytes) {
  for (sm::PlacementList const& list :
       {sm::PlacementList{r, s0}, sm::PlacementList{r, r}, sm::PlacementList{s1, r},
        sm::PlacementList{s0, s1}, sm::PlacementList{s0, s0}}) {
    auto const mesh = sm::device_mesh(world, {2, world.size() / 2}, {"a", "b"});
    sm::StateDict dict = state_of(mesh, list, 1000);
    sm::CheckpointReport const report =
        sm::load(world, directory, dict, {.round_bytes = round_bytes});
    std::string const what = sm::difference(dict, state_of(mesh, list, 3));
    if (!what.empty()) {
      return what;
    }
    if (total(world, report.bytes_read) != item_bytes(directory)) {
      return std::to_string(total(world, report.bytes_read)) + " bytes read of " +
             std::to_string(item_bytes(directory));
    }
    if (round_bytes == 1 && report.rounds < 2) {
      return "one round in spite of the budget";
    }
  }
  return {};
}

}  // namespace

TEST_CASE("every item is read once and passed on, whatever the layout and the budget") {
  test::Scratch const scratch;
  for (int const writers : {1, 3, 4}) {
    sm::launch(sm::threads{writers}, [&](auto& world) {
      auto const mesh = sm::device_mesh(world, {writers, 1}, {"a", "b"});
      sm::save(world, scratch / "run", state_of(mesh, {s0, r}, 3));
    });
    for (int const readers : {2, 4, 6}) {
      sm::launch(sm::threads{readers}, [&](auto& world) {
        CHECK(load_once(world, scratch / "run", 1) == "");
        CHECK(load_once(world, scratch / "run", 700) == "");
        CHECK(load_once(world, scratch / "run", 1 << 20) == "");
      });
    }
  }
}

#if SHARDMESH_TEST_MAY_FORK
TEST_CASE("every item is read once by processes that talk over sockets") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::save(world, scratch / "run", state_of(sm::device_mesh(world, {2, 1}), {s0, r}, 3));
  });
  CHECK(sm::spawn_processes(4, [&] {
          std::string problem;
          sm::launch(sm::environment{},
                     [&](auto& world) { problem = load_once(world, scratch / "run", 700); });
          return problem.empty() ? 0 : 1;
        }) == std::vector<int>(4, 0));
}
#endif

TEST_CASE("safetensors are read by rows, once, and passed on") {
  test::Scratch const scratch;
  std::string const path = scratch / "x.safetensors";
  sm::StateDict whole;
  sm::Tensor<double> tensor({1000, 3});
  std::iota(tensor.span().begin(), tensor.span().end(), 0.0);
  whole.insert("x", tensor);
  sm::save_safetensors(path, whole);
  std::string const theirs = scratch / "theirs.safetensors";  // without checksums
  std::string bytes = test::slurp(path);
  bytes.replace(bytes.find("SHARDMESH_CRC32"), 15, "OTHER_CRC_ENTRY");
  test::spit(theirs, bytes);
  sm::launch(sm::threads{4}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"a", "b"});
    for (sm::PlacementList const& list : {sm::PlacementList{r, s0}, sm::PlacementList{s1, r}}) {
      sm::StateDict dict;
      dict.insert("x", test::unset_tensor(sm::DType::float64, {1000, 3}, mesh, list));
      sm::CheckpointReport const report = sm::load_any(world, theirs, dict, {.round_bytes = 2000});
      CHECK(total(world, report.bytes_read) == 24000);
      CHECK(report.bytes_read < 12000);  // all ranks take part
      CHECK(report.rounds > 1);
      sm::StateDict expected;
      expected.insert("x", sm::distribute(tensor, mesh, list, sm::DataSource::own));
      CHECK(sm::difference(dict, expected) == "");
    }
  });
}

TEST_CASE("safetensors with checksums are read once by each rank that reads of them") {
  test::Scratch const scratch;
  std::string const path = scratch / "x.safetensors";
  sm::StateDict whole;
  sm::Tensor<double> tensor({1000, 3});
  std::iota(tensor.span().begin(), tensor.span().end(), 0.0);
  whole.insert("x", tensor);
  sm::save_safetensors(path, whole);
  sm::launch(sm::threads{4}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"a", "b"});
    sm::StateDict dict;
    dict.insert("x",
                test::unset_tensor(sm::DType::float64, {1000, 3}, mesh, sm::PlacementList{r, s0}));
    sm::CheckpointReport const report = sm::load_any(world, path, dict, {.round_bytes = 2000});
    CHECK(report.bytes_read <= 24000);  // the MiB in which its rows lie, in however many rounds
    CHECK(report.rounds > 1);
  });
}

TEST_CASE("plan_load: the ranks that want an item share the reading, and keep to the budget") {
  sm::StoredTensor stored{sm::DType::float32, {8, 10}, {}};
  for (sm::index_t i = 0; i < 8; ++i) {
    stored.boxes.push_back({{i, 0}, {1, 10}});  // 40 bytes each
  }
  sm::Box const whole = sm::Box::whole(stored.shape);
  sm::LoadWishes all;
  all.tensors = {{0, {whole}}};
  sm::LoadWishes upper;
  upper.tensors = {{0, {{{0, 0}, {4, 10}}}}};
  auto const plan = sm::plan_load({&stored}, {all, upper, {}}, 0, 1 << 20);
  REQUIRE(plan.units.size() == 8);
  CHECK(plan.rounds.size() == 1);
  std::vector<int> reads(3, 0);
  for (sm::ReadUnit const& unit : plan.units) {
    ++reads[static_cast<std::size_t>(unit.reader)];
    CHECK(unit.wanted_by == (unit.box < 4 ? std::vector<int>{0, 1} : std::vector<int>{0}));
  }
  CHECK(reads == std::vector<int>{6, 2, 0});
  // A unit that is shared takes 80 bytes of its reader and 40 of the other.
  auto const slow = sm::plan_load({&stored}, {all, upper, {}}, 0, 120);
  CHECK(slow.rounds.size() > 2);
  for (auto const& round : slow.rounds) {
    std::vector<int> held(2, 0);
    for (std::size_t const i : round) {
      sm::ReadUnit const& unit = slow.units[i];
      held[static_cast<std::size_t>(unit.reader)] += 40;
      if (unit.wanted_by.size() == 2) {
        held[0] += 40;
        held[1] += 40;
      }
    }
    CHECK((held[0] <= 120 && held[1] <= 120));
  }
  auto const rows = sm::plan_load({&stored}, {all, upper, {}}, 20, 1 << 20);
  CHECK(rows.units.size() == 8);  // a row is not cut
  sm::StoredTensor const one{sm::DType::float32, {8, 10}, {whole}};
  auto const cut = sm::plan_load({&one}, {all, upper, {}}, 100, 1 << 20);
  REQUIRE(cut.units.size() == 4);
  CHECK(cut.units[3].part == sm::Box{{6, 0}, {2, 10}});
  CHECK(cut.units[3].wanted_by == std::vector<int>{0});
}

TEST_CASE("keys may differ between ranks") {
  test::Scratch const scratch;
  auto const own = [](auto const& world, int value) {
    sm::StateDict dict;
    sm::Tensor<float> tensor({3});
    std::fill(tensor.span().begin(), tensor.span().end(), static_cast<float>(value + world.rank()));
    dict.insert("sparse" + std::to_string(world.rank()), tensor);
    dict.insert("seed" + std::to_string(world.rank()), sm::Value(value + world.rank()));
    dict.insert("common", sm::Value(value));
    return dict;
  };
  sm::launch(sm::threads{3}, [&](auto& world) {
    sm::save(world, scratch / "run", own(world, 5));
    sm::StateDict dict = own(world, 100);
    sm::CheckpointReport const report =
        sm::load(world, scratch / "run", dict, {.unexpected = sm::KeyPolicy::error});
    CHECK(sm::difference(dict, own(world, 5)) == "");
    CHECK(report.bytes_received == 0);
    CHECK(total(world, report.bytes_read) == item_bytes(scratch / "run"));
  });
}

TEST_CASE("dtypes that differ: an error, a report, or nothing said") {
  test::Scratch const scratch;
  sm::launch(sm::threads{4}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"a", "b"});
    sm::StateDict saved;
    saved.insert("w",
                 counted<float>({6, 5}, mesh, {r, s0}, 250));  // 255.. need rounding in bfloat16
    saved.insert("n", counted<std::int64_t>({4}, mesh, {s0, s0}, 0));
    sm::save(world, scratch / "run", saved);
    auto const wanted = [&] {
      sm::StateDict dict;
      dict.insert("w", test::unset_tensor(sm::DType::bfloat16, {6, 5}, mesh, {s1, r}));
      dict.insert("n", test::unset_tensor(sm::DType::int8, {4}, mesh, {r, r}));
      return dict;
    };
    sm::StateDict dict = wanted();
    CHECK_THROWS_WITH_AS(sm::load(world, scratch / "run", dict),
                         doctest::Contains("DTypePolicy::cast"), sm::InvalidArgument);
    CHECK(sm::difference(dict, wanted()) == "");
    sm::CheckpointReport report =
        sm::load(world, scratch / "run", dict, {.dtype = sm::DTypePolicy::warn});
    CHECK(report.cast == std::vector<std::string>{"w: float32 to bfloat16", "n: int64 to int8"});
    sm::StateDict expected;
    expected.insert("w", counted<sm::BFloat16>({6, 5}, mesh, {s1, r}, 250));
    expected.insert("n", counted<std::int8_t>({4}, mesh, {r, r}, 0));
    CHECK(sm::difference(dict, expected) == "");
    dict = wanted();
    report = sm::load(world, scratch / "run", dict, {.dtype = sm::DTypePolicy::cast});
    CHECK(report.cast.empty());
    CHECK(sm::difference(dict, expected) == "");
    sm::StateDict other;
    other.insert("n", test::unset_tensor(sm::DType::float32, {4}, mesh, {r, r}));
    CHECK_THROWS_WITH_AS(sm::load(world, scratch / "run", other, {.dtype = sm::DTypePolicy::cast}),
                         doctest::Contains("no conversion"), sm::InvalidArgument);
  });
}

TEST_CASE("an integer that does not fit is an error on every rank, and nothing is overwritten") {
  test::Scratch const scratch;
  sm::launch(sm::threads{3}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {3}, {"a"});
    sm::StateDict saved;
    saved.insert("n", counted<std::int64_t>({9}, mesh, {s0}, 122));  // to 130
    sm::save(world, scratch / "run", saved);
    sm::StateDict dict;
    dict.insert("n", test::unset_tensor(sm::DType::int8, {9}, mesh, {s0}));
    sm::StateDict const before = sm::offloaded(dict);
    std::string said;
    try {
      sm::load(world, scratch / "run", dict, {.dtype = sm::DTypePolicy::cast});
    } catch (sm::Error const& error) {
      said = error.what();
    }
    CHECK(said.find("the value 128 does not fit") != std::string::npos);
    CHECK(sm::difference(dict, before) == "");
  });
}

TEST_CASE("keys that one side has not: an error, a report, a line, or nothing said") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 1}, {"a", "b"});
    sm::save(world, scratch / "run", state_of(mesh, {s0, r}, 3));
    auto const make = [&] {
      sm::StateDict dict;
      dict.insert("w0", counted<float>({9, 5}, mesh, {r, r}, 0));
      dict.insert("new", counted<float>({2}, mesh, {r, r}, 8));
      dict.insert("epoch", sm::Value(8));
      return dict;
    };
    sm::StateDict dict = make();
    CHECK_THROWS_WITH_AS(sm::load(world, scratch / "run", dict), doctest::Contains("no \"new\""),
                         sm::KeyError);
    CHECK_THROWS_WITH_AS(
        sm::load(world, scratch / "run", dict,
                 {.missing = sm::KeyPolicy::ignore, .unexpected = sm::KeyPolicy::error}),
        doctest::Contains("8 keys that no state dict has, the first is \"w1\""), sm::KeyError);
    CHECK(sm::difference(dict, make()) == "");
    for (sm::KeyPolicy const policy : {sm::KeyPolicy::log, sm::KeyPolicy::collect}) {
      dict = make();
      sm::CheckpointReport const report =
          sm::load(world, scratch / "run", dict, {.missing = policy, .unexpected = policy});
      CHECK(report.missing == std::vector<std::string>{"new", "epoch"});
      CHECK(report.unexpected.size() == 8);
      CHECK(report.unexpected.back() == "name");
      CHECK(sm::difference(dict.at("w0").tensor(), state_of(mesh, {r, r}, 3).at("w0").tensor()) ==
            "");
      CHECK(sm::difference(dict.at("new").tensor(), make().at("new").tensor()) == "");
      CHECK(dict.at("epoch").plain() == sm::Value(8));
    }
    sm::CheckpointReport const silent =
        sm::load(world, scratch / "run", dict, {.missing = sm::KeyPolicy::ignore});
    CHECK((silent.missing.empty() && silent.unexpected.empty()));
  });
}

TEST_CASE("damage that one reader meets in a late round stops all, and nothing is overwritten") {
  test::Scratch const scratch;
  std::string const directory = scratch / "run";
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::save(world, directory, state_of(sm::device_mesh(world, {2, 1}), {s0, r}, 3));
  });
  sm::DcpCatalog<> catalog(directory);
  auto const& info = *catalog.metadata().find("w5")->tensor()->chunks[1].storage;
  std::string bytes = test::slurp(directory + "/" + info.relative_path);
  bytes[info.offset + catalog.read_box("w5", 1).first + 3] ^= 0x10;
  test::spit(directory + "/" + info.relative_path, bytes);
  sm::launch(sm::threads{4}, [&](auto& world) {
    for (sm::PlacementList const& list : {sm::PlacementList{r, r}, sm::PlacementList{s0, s0}}) {
      auto const mesh = sm::device_mesh(world, {2, 2}, {"a", "b"});
      sm::StateDict dict = state_of(mesh, list, 50);
      std::string said;
      try {
        sm::load(world, directory, dict, {.round_bytes = 300});
      } catch (sm::Error const& error) {
        said = error.what();
      }
      CHECK(said.find("CRC") != std::string::npos);
      CHECK(sm::difference(dict, state_of(mesh, list, 50)) == "");
    }
  });
}

TEST_CASE("a partial tensor is refused: it would become a multiple of what was saved") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 1}, {"a", "b"});
    sm::save(world, scratch / "run", state_of(mesh, {s0, r}, 3));
    auto const make = [&] {
      sm::StateDict dict = state_of(mesh, {s0, r}, 50);
      sm::StateDict partial;
      for (sm::StateEntry const& entry : dict) {
        if (entry.key == "w3") {
          partial.insert(
              "w3", test::unset_tensor(sm::DType::float32, {12, 5}, mesh, {sm::Partial<>{}, r}));
        } else {
          partial.insert(entry.path, entry.value);
        }
      }
      return partial;
    };
    sm::StateDict dict = make();
    CHECK_THROWS_WITH_AS(sm::load(world, scratch / "run", dict),
                         doctest::Contains("load into a tensor that is Replicate or Shard"),
                         sm::InvalidArgument);
    CHECK(sm::difference(dict, make()) == "");
  });
}

TEST_CASE("storage that rank 0 cannot look at is an error on every rank") {
  test::Scratch const scratch;
  test::fs::create_symlink(scratch / "loop", scratch / "loop");
  sm::launch(sm::threads{3}, [&](auto& world) {
    sm::StateDict dict = state_of(sm::device_mesh(world, {3, 1}, {"a", "b"}), {s0, r}, 3);
    CHECK_THROWS_WITH_AS(sm::load_any(world, scratch / "loop/run", dict),
                         doctest::Contains("cannot look at"), sm::Error);
    CHECK_THROWS_WITH_AS(sm::load(world, scratch / "loop/run", dict),
                         doctest::Contains("cannot look at"), sm::Error);
  });
}

TEST_CASE("more files than may be open: few of them are, on load and on save") {
  constexpr int files = 40;
  test::Scratch const scratch;
  auto const name_of = [](int i) { return "t" + std::to_string(i); };
  sm::launch(sm::threads{files}, [&](auto& world) {
    sm::Tensor<int> own({2});
    std::fill(own.span().begin(), own.span().end(), world.rank());
    sm::StateDict dict;
    dict.insert(name_of(world.rank()), own);
    sm::save(world, scratch / "run", dict);
  });
  CHECK(sm::PosixStorage::list(scratch / "run").size() == files + 2);
  test::FewDescriptors const few(14);
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::StateDict dict;
    for (int i = 0; i < files; ++i) {
      dict.insert(name_of(i), test::unset_tensor(sm::DType::int32, {2}, mesh, {s0}));
    }
    auto const is_loaded = [&] {
      bool all = true;
      for (int i = 0; i < files; ++i) {
        int value = -1;
        std::vector<std::byte> const bytes = dict.at(name_of(i)).tensor().local_bytes();
        std::memcpy(&value, bytes.data(), sizeof(value));
        all = all && value == i;
        dict.at(name_of(i)).tensor().assign(std::vector<std::byte>(bytes.size()));
      }
      return all;
    };
    sm::load(world, scratch / "run", dict);
    CHECK(is_loaded());
    sm::load(world, scratch / "run", dict);
    sm::save_safetensors_sharded(world, scratch / "model", dict, 1);
    CHECK(sm::PosixStorage::list(scratch / "model").size() == files + 1);
    CHECK(is_loaded());
    sm::load_any(world, scratch / "model", dict);
    CHECK(is_loaded());
  });
}

TEST_CASE("ranks that see different checkpoints say so") {
  test::Scratch const scratch;
  for (int i = 0; i < 2; ++i) {
    sm::launch(sm::threads{1}, [&](auto& world) {
      sm::StateDict dict;
      dict.insert("x", counted<float>({4 + i}, sm::device_mesh<1>(world, {1}), {r}, 0));
      dict.insert("n", sm::Value(1));
      sm::save(world, scratch / std::to_string(i), dict);
    });
  }
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::StateDict dict;
    dict.insert("n", sm::Value());
    CHECK_THROWS_WITH_AS(
        sm::load_from(
            world, [&] { return sm::DcpCatalog<>(scratch / std::to_string(world.rank())); }, dict),
        doctest::Contains("different checkpoints"), sm::MismatchError);
  });
}

TEST_CASE("numbers of any size travel packed, and what is cut off is told") {
  sm::detail::Packer out;
  for (std::uint64_t const value : {std::uint64_t{0}, std::uint64_t{127}, std::uint64_t{128},
                                    std::uint64_t{1} << 63, UINT64_MAX}) {
    out.number(value);
  }
  std::string const text = std::move(out).finish();
  sm::detail::Unpacker in(text);
  CHECK(in.number() == 0);
  CHECK(in.number() == 127);
  CHECK(in.number() == 128);
  CHECK(in.number() == std::uint64_t{1} << 63);
  CHECK(in.number() == UINT64_MAX);
  CHECK(in.at_end());
  sm::detail::Unpacker cut(std::string_view(text).substr(0, 3));
  CHECK(cut.number() == 0);
  CHECK(cut.number() == 127);
  CHECK(test::error_of<sm::MismatchError>([&] {
          static_cast<void>(cut.number());
        }).find("ends early") != std::string::npos);
}

TEST_CASE("ranks that load with different options get an error that people can read") {
  test::Scratch const scratch;
  std::string const path = scratch / "c";
  auto const error_with = [&](sm::LoadOptions const& other) {
    std::vector<std::string> errors(2);
    try {
      sm::launch(sm::threads{2, std::chrono::minutes(2)}, [&](sm::ThreadsCommunicator& world) {
        sm::DeviceMesh const mesh = sm::device_mesh(world, {2}, {"x"});
        sm::StateDict dict = state_of(mesh, {s0}, 1);
        auto const rank = static_cast<std::size_t>(world.rank());
        errors[rank] = test::error_of<sm::Error>(
            [&] { sm::load(world, path, dict, rank == 1 ? other : sm::LoadOptions{}); });
      });
    } catch (sm::CommError const&) {  // one rank has gone where the other does not follow
    }
    return errors;
  };
  sm::launch(sm::threads{2}, [&](sm::ThreadsCommunicator& world) {
    sm::DeviceMesh const mesh = sm::device_mesh(world, {2}, {"x"});
    sm::save(world, path, state_of(mesh, {s0}, 1));
  });
  sm::LoadOptions collecting;
  collecting.unexpected = sm::KeyPolicy::collect;
  sm::LoadOptions small;
  small.round_bytes = 64;
  for (sm::LoadOptions const& other : {collecting, small}) {
    for (std::string const& error : error_with(other)) {
      CHECK(std::all_of(error.begin(), error.end(), [](char c) { return c >= ' ' && c <= '~'; }));
    }
  }
  CHECK(
      error_with(collecting)[0] ==
      "shardmesh::load: ranks disagree; rank 0 has dtype error; missing error; unexpected ignore; "
      "round_bytes 268435456, rank 1 has dtype error; missing error; unexpected collect; "
      "round_bytes "
      "268435456; all ranks must pass the same arguments in the same order");
}

TEST_SUITE_END();

}  // namespace load_test
