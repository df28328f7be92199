// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Every bit of every file of two small checkpoints of ours: what a load makes of it, and what `verify` says.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/safetensors_checks.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/checkpoints.hpp"
#include "../support/sanitizers.hpp"

namespace every_bit_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

TEST_SUITE_BEGIN("checkpoint.every_bit");

namespace {

/// One bit of so many is flipped: `usual`, `more` times as many where sanitizers watch, or all with
/// SHARDMESH_EVERY_BIT=1. An odd number, so that each place in bytes has its turn.
std::size_t step_wanted(std::size_t usual, std::size_t more) {
  char const* const wanted = std::getenv("SHARDMESH_EVERY_BIT");
  bool const all = wanted != nullptr && std::string_view(wanted) == "1";
  return all ? 1 : usual * (test::sanitized ? more : 1);
}

template <class T>
sm::Tensor<T> counted(sm::Shape const& shape, T first) {
  sm::Tensor<T> whole(shape);
  std::iota(whole.span().begin(), whole.span().end(), first);
  return whole;
}

/// Tensors that are cut, whole, a scalar and without elements, and plain values.
template <class Mesh>
sm::StateDict small_state(Mesh const& mesh) {
  auto const spread = [&](auto const& whole, sm::Placement const& placement) {
    return sm::distribute(whole, mesh, sm::PlacementList{placement}, sm::DataSource::own);
  };
  sm::StateDict dict;
  dict.insert("layer.weight", spread(counted<float>({3, 4}, 1), sm::Shard{0}));
  dict.insert("layer.bias", spread(counted<double>({3}, -1), sm::Replicate{}));
  dict.insert("empty", spread(counted<float>({0, 4}, 0), sm::Replicate{}));
  dict.insert("count", spread(counted<std::int64_t>({}, 7), sm::Replicate{}));
  dict.insert("step", sm::Value(7));
  dict.insert("name", sm::Value("a run"));
  dict.insert("rate", sm::Value(0.125));
  return dict;
}

/// What a load leaves of a checkpoint that is all right.
enum class Loaded { equal, different, refused };

/// How many flips ended so: what the load made of it, and whether `verify` saw it.
struct Tally {
  std::map<std::string, std::map<std::pair<Loaded, bool>, std::size_t>> of_file;
  std::size_t noted = 0;        ///< of which `verify` says a note, no damage
  std::string first_different;  ///< file and bit
  std::map<std::string, std::vector<std::size_t>> unseen_bits;  ///< of which `verify` says nothing

  [[nodiscard]] std::size_t flips() const {
    return sum([](auto const&) { return true; });
  }
  [[nodiscard]] std::size_t all(Loaded loaded) const {
    return sum([&](auto const& how) { return how.first == loaded; });
  }
  [[nodiscard]] std::size_t unseen() const {
    return sum([](auto const& how) { return !how.second; });
  }
  [[nodiscard]] std::size_t unseen(Loaded loaded) const {
    return sum([&](auto const& how) { return how.first == loaded && !how.second; });
  }

 private:
  template <class Wanted>
  [[nodiscard]] std::size_t sum(Wanted wanted) const {
    std::size_t count = 0;
    for (auto const& [file, hows] : of_file) {
      for (auto const& [how, flips] : hows) {
        count += wanted(how) ? flips : 0;
      }
    }
    return count;
  }
};

enum class Said { nothing, note, damage };

Said said_by_verify(std::string const& path) {
  try {
    return sm::with_catalog(path, [](auto& catalog) {
      sm::VerifyReport const report = sm::verify(catalog);
      return !report.damage.empty()  ? Said::damage
             : !report.notes.empty() ? Said::note
                                     : Said::nothing;
    });
  } catch (sm::Error const&) {
    return Said::damage;
  }
}

/// Flips one bit of `step`, one after the other, of all files of a directory; no exception but ours may come of it.
Tally flip_bits(std::string const& path, std::size_t step) {
  Tally tally;
  sm::launch(sm::threads{1}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {1});
    sm::StateDict first = sm::with_catalog(path, [&](auto const& catalog) {
      return test::unset_state(catalog, mesh, {sm::Replicate{}});
    });
    sm::load_any(world, path, first);
    sm::StateDict const original = sm::offloaded(first);
    auto const load = [&] {
      sm::StateDict dict;
      for (sm::StateEntry const& entry : original) {
        if (entry.is_tensor()) {
          dict.insert(entry.key, test::unset_tensor(entry.tensor().dtype(), entry.tensor().shape(),
                                                    mesh, {sm::Replicate{}}));
        } else {
          dict.insert(entry.key, sm::Value());
        }
      }
      try {
        sm::load_any(world, path, dict);
      } catch (sm::Error const&) {
        return Loaded::refused;
      }
      return sm::difference(original, sm::offloaded(dict)).empty() ? Loaded::equal
                                                                   : Loaded::different;
    };
    REQUIRE(load() == Loaded::equal);
    REQUIRE(said_by_verify(path) == Said::nothing);
    std::size_t next = 0;
    for (std::string const& name : sm::PosixStorage::list(path)) {
      std::string const file = path + "/" + name;
      std::string const bytes = test::slurp(file);
      for (; next < 8 * bytes.size(); next += step) {
        std::string damaged = bytes;
        damaged[next / 8] = static_cast<char>(damaged[next / 8] ^ (1 << (next % 8)));
        test::spit(file, damaged);
        Loaded const loaded = load();
        Said const said = said_by_verify(path);
        bool const seen = said != Said::nothing;
        tally.noted += said == Said::note ? 1 : 0;
        ++tally.of_file[name][{loaded, seen}];
        if (!seen) {
          tally.unseen_bits[name].push_back(next);
        }
        if (loaded == Loaded::different && tally.first_different.empty()) {
          tally.first_different = name + " bit " + std::to_string(next);
        }
      }
      next -= 8 * bytes.size();  // the files as one row of bits
      test::spit(file, bytes);
    }
    REQUIRE(load() == Loaded::equal);
  });
  return tally;
}

void tell(char const* what, Tally const& tally) {
  MESSAGE(std::string(what) << ": " << tally.flips() << " bits flipped, one at a time; "
                            << tally.all(Loaded::refused) << " loads refused, "
                            << tally.all(Loaded::equal) << " loaded the same, "
                            << tally.all(Loaded::different) << " something else; verify saw "
                            << tally.flips() - tally.unseen());
}

/// Where one of these words stands in a file.
bool is_in_word(std::string const& bytes,
                std::size_t at,
                std::vector<std::string_view> const& words) {
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
    std::size_t const found = bytes.find(word);
    return found != bytes.npos && at >= found && at < found + word.size();
  });
}

/// Takes from a checkpoint what makes damage visible: the manifest, and the CRCs in the directories of all archives
/// (0 stands for "not computed").
void switch_checks_off(std::string const& path) {
  sm::PosixStorage::remove_all(path + "/" + std::string(sm::manifest_name));
  std::size_t records = 0;
  for (std::string const& name : sm::PosixStorage::list(path)) {
    if (name.ends_with(".distcp")) {
      std::string bytes = test::slurp(path + "/" + name);
      for (std::size_t at = 0; (at = bytes.find("PK\x01\x02", at)) != bytes.npos; at += 4) {
        bytes.replace(at + 16, 4, 4, '\0');
        ++records;
      }
      test::spit(path + "/" + name, bytes);
    }
  }
  REQUIRE(records > 20);
}

}  // namespace

TEST_CASE("a directory of DCP: verify sees every flipped bit, load refuses it or what it loads is "
          "right") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::save(world, run, small_state(sm::device_mesh<1>(world, {2})));
  });
  REQUIRE(sm::PosixStorage::list(run).size() == 4);
  Tally const tally = flip_bits(run, step_wanted(101, 9));
  tell("a directory of DCP", tally);
  INFO(tally.first_different);
  CHECK(tally.all(Loaded::different) == 0);
  CHECK(tally.unseen() == 0);
  CHECK(tally.noted == 0);
  // What a load need not refuse stands between the items, where it does not look.
  for (auto const& [file, hows] : tally.of_file) {
    CAPTURE(file);
    CHECK((hows.count({Loaded::equal, true}) == 0 || file.ends_with(".distcp")));
  }
  CHECK(tally.all(Loaded::refused) > tally.flips() * 3 / 4);
}

TEST_CASE("with the checks of a directory of DCP switched off, flipped bits do go unseen") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::save(world, run, small_state(sm::device_mesh<1>(world, {2})));
  });
  switch_checks_off(run);
  Tally const tally = flip_bits(run, step_wanted(149, 1));
  tell("without checks", tally);
  CHECK(tally.all(Loaded::different) > 0);
  CHECK(tally.unseen(Loaded::different) > 0);
}

TEST_CASE("a directory of safetensors: no flipped bit loads as something else, and what is not "
          "seen is known") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::save_safetensors_sharded(world, run, small_state(sm::device_mesh<1>(world, {2})), 48);
  });
  REQUIRE(sm::PosixStorage::list(run).size() == 3);
  Tally const tally = flip_bits(run, step_wanted(7, 9));
  tell("a directory of safetensors", tally);
  INFO(tally.first_different);
  CHECK(tally.all(Loaded::different) == 0);
  CHECK(tally.unseen(Loaded::refused) == 0);
  CHECK(tally.unseen() + tally.noted == tally.all(Loaded::equal));
  // The name of the checksums: under another nobody looks at them, and the elements are as they were. In the
  // index the name of the total size, and of the object that it is in: nothing depends on it. Another total size
  // is noted.
  for (auto const& [file, bits] : tally.unseen_bits) {
    std::string const bytes = test::slurp(run + "/" + file);
    for (std::size_t const bit : bits) {
      CAPTURE(file);
      CAPTURE(bit / 8);
      CHECK(is_in_word(bytes, bit / 8,
                       file.ends_with(".json")
                           ? std::vector<std::string_view>{"metadata", "total_size"}
                           : std::vector<std::string_view>{format::checks_key}));
    }
  }
  CHECK(tally.all(Loaded::refused) > tally.flips() * 3 / 4);
}

TEST_SUITE_END();

}  // namespace every_bit_test
