// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Flipped bits: `verify` sees them, or they carry no data.
#include <shardmesh/checkpoint/verify.hpp>

#include <cstdlib>
#include <random>
#include <string>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"

namespace verify_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.verify");

namespace {

sm::VerifyReport verify_path(std::string const& path) {
  return sm::with_catalog(path, [](auto& catalog) { return sm::verify(catalog); });
}

/// Everything in a checkpoint, on one rank.
sm::StateDict read_all(std::string const& path) {
  sm::StateDict result;
  sm::launch(sm::threads{1}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {1});
    sm::StateDict dict = sm::with_catalog(path, [&](auto const& catalog) {
      return test::unset_state(catalog, mesh, {sm::Replicate{}});
    });
    sm::load_any(world, path, dict);
    result = sm::offloaded(dict);
  });
  return result;
}

enum class Fate { seen, harmless, unseen };

/// Does `verify` see the damage? If not: does everything load as it was?
Fate fate_of(std::string const& path, sm::StateDict const& original) {
  try {
    if (!verify_path(path).damage.empty()) {
      return Fate::seen;
    }
  } catch (sm::Error const&) {
    return Fate::seen;
  }
  return sm::difference(original, read_all(path)).empty() ? Fate::harmless : Fate::unseen;
}

struct Flips {
  long seen = 0;
  long harmless = 0;
  std::string unseen;
};

/// Flips random bits of all files of a directory, one at a time, each file as often as its size asks
/// for.
Flips flip_bits_in(std::string const& path, long flips, unsigned seed) {
  sm::StateDict const original = read_all(path);
  std::vector<std::string> files;
  std::vector<double> sizes;
  for (auto const& file : test::fs::directory_iterator(path)) {
    files.push_back(file.path());
    sizes.push_back(static_cast<double>(file.file_size()));
  }
  std::mt19937 random(seed);
  std::discrete_distribution<std::size_t> pick(sizes.begin(), sizes.end());
  Flips result;
  for (long i = 0; i < flips; ++i) {
    std::string const& file = files[pick(random)];
    std::string const bytes = test::slurp(file);
    std::string damaged = bytes;
    std::size_t const at = random() % bytes.size();
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random() % 8)));
    test::spit(file, damaged);
    Fate const fate = fate_of(path, original);
    result.seen += fate == Fate::seen ? 1 : 0;
    result.harmless += fate == Fate::harmless ? 1 : 0;
    if (fate == Fate::unseen && result.unseen.empty()) {
      result.unseen = file + " byte " + std::to_string(at);
    }
    test::spit(file, bytes);
  }
  return result;
}

Flips flip_bits_of(std::string const& fixture, long flips, unsigned seed) {
  test::Scratch const scratch;
  std::string const path = scratch / "copy";
  test::fs::copy(test::fixture(fixture), path, test::fs::copy_options::recursive);
  return flip_bits_in(path, flips, seed);
}

/// SHARDMESH_FLIPS asks for more.
long flips_wanted() {
  char const* const wanted = std::getenv("SHARDMESH_FLIPS");
  return wanted == nullptr ? 200 : std::atol(wanted);
}

}  // namespace

TEST_CASE("verify finds nothing wrong in any fixture") {
  for (std::string const& name : test::fixtures()) {
    INFO(name);
    sm::VerifyReport const report = verify_path(test::fixture(name));
    CHECK(report.values > 0);
    CHECK(report.bytes > 0);
    CHECK(report.damage.empty());
  }
}

TEST_CASE("verify goes on after damage, and names key, file and byte") {
  test::Scratch const scratch;
  std::string const path = scratch / "copy";
  test::fs::copy(test::fixture("hsdp_fsdp2"), path, test::fs::copy_options::recursive);
  sm::DcpCatalog<> catalog(path);
  for (char const* key : {"model.net1.0.weight", "model.net3.0.weight"}) {
    auto const& info = *catalog.metadata().find(key)->tensor()->chunks[0].storage;
    sm::StoredBox const box = catalog.read_box(key, 0);
    std::string bytes = test::slurp(path + "/" + info.relative_path);
    bytes[info.offset + box.first + 3] ^= 0x10;
    test::spit(path + "/" + info.relative_path, bytes);
  }
  sm::VerifyReport const report = verify_path(path);
  REQUIRE(report.damage.size() == 2);
  for (sm::Damage const& one : report.damage) {
    CHECK(one.what.find("CRC") != std::string::npos);
    CHECK(one.what.find(".distcp") != std::string::npos);
  }
}

TEST_CASE("verify goes on after files that are missing, and names all of them") {
  test::Scratch const scratch;
  sm::launch(sm::threads{4}, [&](auto& world) {
    sm::StateDict dict;
    dict.insert("rank" + std::to_string(world.rank()), sm::Value(world.rank()));
    sm::save(world, scratch / "run", dict);
  });
  test::fs::remove(scratch / "run/__0_0.distcp");
  test::fs::remove(scratch / "run/__2_0.distcp");
  test::spit(scratch / "run/__3_0.distcp", "cut");
  std::vector<std::string> keys;
  for (sm::Damage const& one : verify_path(scratch / "run").damage) {
    keys.push_back(one.key);
  }
  CHECK(keys == std::vector<std::string>{"rank0", "rank2", "rank3", "__0_0.distcp", "__2_0.distcp",
                                         "__3_0.distcp"});
}

TEST_CASE("every flipped bit is seen, or changes nothing") {
  long const flips = flips_wanted();
  for (char const* name : {"hsdp_fsdp2", "torch_2_15_hsdp", "fsdp2_tp"}) {
    Flips const result = flip_bits_of(name, flips / 3, 7);
    INFO(result.unseen);
    CHECK(result.unseen.empty());
    CHECK(result.seen > 0);
    MESSAGE(std::string(name) << ": " << result.seen << " seen, " << result.harmless
                              << " changed nothing");
  }
}

TEST_CASE("with a manifest every flipped bit is seen, in whatever byte") {
  test::Scratch const scratch;
  sm::StateDict const dict = read_all(test::fixture("hsdp_fsdp2"));
  sm::launch(sm::threads{1}, [&](auto& world) { sm::save(world, scratch / "run", dict); });
  CHECK(verify_path(scratch / "run").damage.empty());
  Flips const result = flip_bits_in(scratch / "run", flips_wanted(), 9);
  INFO(result.unseen);
  CHECK(result.seen == flips_wanted());
  CHECK(result.harmless == 0);
  for (char const* const name : {"/.shardmesh", "/.metadata"}) {
    std::string const file = scratch / "run" + name;
    std::string const bytes = test::slurp(file);
    for (std::size_t at = 0; at < bytes.size(); at += bytes.size() / 40) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
      test::spit(file, damaged);
      CHECK(fate_of(scratch / "run", dict) == Fate::seen);
      test::spit(file, bytes.substr(0, at));
      CHECK(fate_of(scratch / "run", dict) == Fate::seen);
    }
    test::spit(file, bytes);
  }
  CHECK(verify_path(scratch / "run").damage.empty());
}

TEST_CASE("load refuses .metadata with any bit flipped, or cut off, and says how to go on") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::StateDict dict;
    dict.insert("step", sm::Value(7));
    sm::save(world, scratch / "run", dict);
  });
  std::string const file = scratch / "run/.metadata";
  std::string const bytes = test::slurp(file);
  auto const said = [&](std::string const& damaged) {
    test::spit(file, damaged);
    try {
      sm::DcpCatalog<> const catalog(scratch / "run");
    } catch (sm::Error const& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  std::size_t const mark = bytes.find(sm::manifest_mark(*sm::find_manifest(scratch / "run")));
  REQUIRE(mark != bytes.npos);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    bool const near_mark = at + 20 > mark && at < mark + 52;  // where all bits are tried
    for (int bit = near_mark ? 0 : static_cast<int>(at % 8); bit < 8; bit += near_mark ? 1 : 8) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      std::string const what = said(damaged);
      if (what.find("is damaged: its CRC is") == what.npos ||
          what.find("remove .shardmesh") == what.npos) {
        FAIL("bit " << bit << " of byte " << at << ": " << what);
      }
    }
    CHECK(said(bytes.substr(0, at)) != "no error");
  }
  CHECK(said(bytes) == "no error");
}

namespace {

/// What a save by PyTorch leaves in a directory: its files, over those of the same names.
void save_by_pytorch(std::string const& fixture, std::string const& directory) {
  test::fs::copy(test::fixture(fixture), directory,
                 test::fs::copy_options::recursive | test::fs::copy_options::overwrite_existing);
}

}  // namespace

TEST_CASE(
    "a manifest that PyTorch has left behind is noted, not taken for damage; both save in turns") {
  sm::StateDict const state = read_all(test::fixture("hsdp_fsdp2"));
  for (char const* const name : {"hsdp_fsdp2", "torch_2_03_hsdp", "torch_2_15_mixed", "dtypes"}) {
    sm::StateDict const original = read_all(test::fixture(name));
    for (int const ranks : {1, 4, 6}) {  // fewer than PyTorch's 4, as many, more
      INFO(name << ", " << ranks << " ranks");
      test::Scratch const scratch;
      std::string const run = scratch / "run";
      for (int turn = 0; turn < 2; ++turn) {
        sm::launch(sm::threads{ranks}, [&](auto& world) {
          sm::StateDict own = state;
          own.insert("only" + std::to_string(world.rank()), sm::Value(turn));
          sm::save(world, run, own);
        });
        sm::VerifyReport const ours = verify_path(run);
        CHECK(ours.damage.empty());
        CHECK(ours.notes.empty());
        CHECK(read_all(run).size() == state.size() + static_cast<std::size_t>(ranks));
        save_by_pytorch(name, run);
        sm::VerifyReport const theirs = verify_path(run);
        CHECK(theirs.damage.empty());
        REQUIRE(theirs.notes.size() == 1);
        CHECK(theirs.notes[0].find("/.shardmesh is of another save") != std::string::npos);
        CHECK(sm::difference(read_all(run), original) == "");
      }
    }
  }
}

TEST_CASE("damage is told beside a manifest of another save too, and a save that was broken off") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  sm::StateDict const state = read_all(test::fixture("hsdp_fsdp2"));
  auto const save = [&] {
    sm::launch(sm::threads{4}, [&](auto& world) { sm::save(world, run, state); });
  };
  save();
  save_by_pytorch("hsdp_fsdp2", run);
  auto const info =
      *sm::DcpCatalog<>(run).metadata().find("model.net1.0.weight")->tensor()->chunks[0].storage;
  std::string const file = run + "/" + info.relative_path;
  std::string bytes = test::slurp(file);
  std::size_t const place = bytes.find("_rebuild_tensor", info.offset);  // in a record
  bytes[place] = static_cast<char>(bytes[place] ^ 1);
  test::spit(file, bytes);
  CHECK(verify_path(run).damage.size() == 1);
  CHECK(verify_path(run).notes.size() == 1);
  save();
  test::fs::copy_file(test::fixture("hsdp_fsdp2") + "/__1_0.distcp", run + "/__1_0.distcp",
                      test::fs::copy_options::overwrite_existing);
  CHECK_FALSE(verify_path(run).damage.empty());  // PyTorch came as far as its first data file
}

TEST_CASE("files of another save of ours, copied without its manifest, are no damage") {
  test::Scratch const scratch;
  auto const save = [&](char const* name, int value) {
    sm::launch(sm::threads{2}, [&](auto& world) {
      sm::StateDict dict;
      dict.insert("step", sm::Value(value));
      sm::save(world, scratch / name, dict);
    });
  };
  save("a", 1);
  save("b", 2);
  for (char const* const name : {"/.metadata", "/__0_0.distcp"}) {
    test::spit(scratch / "a" + name, test::slurp(scratch / "b" + name));
  }
  CHECK(verify_path(scratch / "a").damage.empty());
  CHECK(verify_path(scratch / "a").notes.size() == 1);
  CHECK(sm::difference(read_all(scratch / "a"), read_all(scratch / "b")) == "");
}

TEST_CASE("a manifest is read as it was written, and nothing else is") {
  std::vector<sm::FileDigest> const files{{"__0_0.distcp", 123, 0xdeadbeef, {{0, 0xff}, {64, 0}}},
                                          {"a b", 0, 0}};
  std::string const text = sm::write_manifest(files);
  CHECK(text.substr(0, 26) == "deadbeef 123 __0_0.distcp\n");
  CHECK(sm::read_manifest(text, "m") == files);
  CHECK(sm::read_manifest(sm::write_manifest({}), "m").empty());
  std::string const last = text.substr(text.rfind('\n', text.size() - 2) + 1);
  for (std::string const& bad :
       {std::string(), std::string("x"), text.substr(0, text.size() - 1), text + text,
        text.substr(26), last, "0" + text, std::string(text).replace(0, 1, "D"),
        sm::write_manifest({{"../x", 1, 1}}), sm::write_manifest({{".shardmesh", 1, 1}}),
        sm::write_manifest({{"a", 9, 1, {{9, 1}}}}),
        sm::write_manifest({{"a", 9, 1, {{4, 1}, {4, 1}}}}),
        " 00000001 4\n" + sm::write_manifest({})}) {
    CHECK_THROWS_WITH_AS(static_cast<void>(sm::read_manifest(bad, "m")),
                         doctest::Contains("m is damaged"), sm::CorruptError);
  }
}

TEST_SUITE_END();

}  // namespace verify_test
