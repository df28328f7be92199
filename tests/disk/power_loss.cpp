// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The power is cut while a checkpoint is written: whatever of it has reached the disk, the checkpoint that is there
// afterwards is the old or the new one, whole. Every operation that a save makes is recorded, and the disk rebuilt
// in the states that a file system may leave: SHARDMESH_POWER_STATES=1000000 for as many in each case.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"
#include "../support/sanitizers.hpp"
#include "disk_model.hpp"
#include "recorder.hpp"
#include "states.hpp"

namespace sm = shardmesh;

using test::DiskState;
using test::held;
using test::Recorder;
using test::recorder;
using test::save;
using test::save_behind;
using test::save_file;
using test::save_hub;

TEST_SUITE_BEGIN("checkpoint.power_loss");

namespace {

/// States to look at in each case.
long wanted_states() {
  char const* const asked = std::getenv("SHARDMESH_POWER_STATES");
  return asked != nullptr ? std::atol(asked) : test::sanitized ? 2000 : 20000;
}

void build(DiskState const& state, std::string const& root) {
  test::fs::create_directories(root);
  state.for_each([&](std::string const& path, DiskState::Node const& node) {
    if (node.is_directory) {
      test::fs::create_directory(root + "/" + path);
    } else {
      test::spit(root + "/" + path, node.bytes);
    }
  });
}

struct Found {
  long states = 0;
  long looked = 0;
  long saved_again = 0;
  std::set<int> values;
  std::string wrong;
};

/// What `name` holds after power cuts in one run of `body`.
/// @param samples  of a moment with many pending operations, and how many of the states are saved over again.
template <class Body, class Again>
void cut_power_once(std::string const& name,
                    std::string const& root,
                    std::string const& place,
                    Body body,
                    Again again,
                    long samples,
                    std::map<std::string, int>& known,
                    Found& found) {
  recorder.begin(root);
  body();
  recorder.end();
  // Whatever the program did by calls that are not recorded would show here.
  DiskState const recorded = recorder.state();
  Recorder after;
  after.begin(root);
  auto const everything = [](std::string const&) { return true; };
  REQUIRE(recorded.text(everything) == after.state().text(everything));
  after.end();

  auto const published = [&name](std::string const& path) {
    return path == name || path.starts_with(name + "/");
  };
  auto const look = [&](DiskState const& state, std::size_t moment) {
    std::string const text = state.text(published);
    auto const [at, is_new] = known.try_emplace(text, 0);
    bool const try_again = ++found.looked % 97 == 0;
    if (!is_new && !try_again) {
      return;
    }
    build(state, place);
    auto const wrong = [&](std::string const& what) {
      if (found.wrong.empty()) {
        found.wrong = "after " + std::to_string(moment) + " operations: " + what + "\n" +
                      state.text(everything);
      }
    };
    std::string why;
    if (is_new) {
      at->second = test::fs::exists(place + "/" + name) ? held(place + "/" + name, why) : 0;
      found.values.insert(at->second);
      if (at->second < 0) {
        wrong(why);
      }
    }
    if (try_again) {
      std::string const refused = test::error_of<sm::Error>([&] { again(place); });
      int const value = held(place + "/" + name, why);
      auto const names = sm::PosixStorage::list(place);
      if (value != 9 || names.size() != 1) {
        wrong("the next save: " + refused + ", " + why + ", " + std::to_string(names.size()) +
              " names");
      }
      ++found.saved_again;
    }
    test::fs::remove_all(place);
  };
  found.states += test::for_each_crash(recorder.start(), recorder.operations(), 6, samples,
                                       static_cast<std::uint32_t>(found.states), look);
}

/// The same of so many runs, on 1 to 4 ranks, that there are enough states.
/// @param start  what is there before, saved as 1.
/// @param save   (path, value, ranks)
/// @param again  a save of the value 9 on what is left, after which nothing else is there.
template <class Start, class Save, class Again>
Found cut_power(std::string const& name, Start start, Save save, Again again) {
  Found found;
  std::map<std::string, int> known;  // by what is published
  int runs = 0;
  for (; runs < 4 || found.states < wanted_states(); ++runs) {
    test::Scratch const scratch(test::memory());
    std::string const root = test::fs::canonical(scratch / "") / "disk";
    int const ranks = 1 + runs % 4;
    test::fs::create_directory(root);
    start(root + "/" + name, ranks);
    cut_power_once(
        name, root, scratch / "state", [&] { save(root + "/" + name, 2, ranks); },
        [&](std::string const& place) { again(place + "/" + name); }, 200, known, found);
  }
  MESSAGE(name << ": " << runs << " saves, " << found.states << " states, " << known.size()
               << " of what is published, " << found.saved_again << " saved over again");
  return found;
}

/// `save` of the value that is there first, or last.
template <class Save>
auto first(Save save) {
  return [save](std::string const& path, int ranks) { save(path, 1, ranks); };
}
template <class Save>
auto last(Save save) {
  return [save](std::string const& path) { save(path, 9, 2); };
}

std::set<int> const old_or_new{1, 2};

}  // namespace

TEST_CASE("power loss in a first save: nothing, or the checkpoint") {
  auto const found = cut_power("run", [](auto&&...) {}, save, last(save));
  CHECK(found.wrong == "");
  CHECK(found.values == std::set<int>{0, 2});
  CHECK(found.states >= wanted_states());
}

TEST_CASE("power loss in a save over a checkpoint: the old one or the new one") {
  auto const found = cut_power("run", first(save), save, last(save));
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("power loss in a save in the background: the old one or the new one") {
  auto const found = cut_power("run", first(save), save_behind, last(save_behind));
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("power loss in a save over a checkpoint with a file of the user's: it stays") {
  auto const found = cut_power(
      "run",
      [](std::string const& path, int ranks) {
        save(path, 1, ranks);
        test::spit(path + "/notes.txt", "mine");
      },
      save,
      [](std::string const& path) {
        save(path, 9, 2);
        if (test::slurp(path + "/notes.txt") != "mine") {
          throw sm::InvalidArgument("the user's file is lost");
        }
      });
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("power loss while a safetensors file is replaced: the old one or the new one") {
  auto const found = cut_power("model.safetensors", first(save_file), save_file, last(save_file));
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("power loss while a directory of safetensors is replaced: the old one or the new one") {
  auto const found = cut_power("model", first(save_hub), save_hub, last(save_hub));
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("the model of the disk finds saves that leave out a step") {
  enum class Forgotten { bytes, exchange, order };
  for (Forgotten const forgotten : {Forgotten::bytes, Forgotten::exchange, Forgotten::order}) {
    test::Scratch const scratch(test::memory());
    std::string const root = test::fs::canonical(scratch / "") / "disk";
    test::fs::create_directory(root);
    std::string const run = root + "/run";
    std::string const place = root + "/new";
    save(run, 1, 1);
    auto const body = [&] {
      save(place, 2, 1);
      if (forgotten == Forgotten::bytes) {  // a copy of the files that is not synced
        std::string const copy = root + "/copy";
        sm::PosixStorage::make_directory(copy);
        for (std::string const& name : sm::PosixStorage::list(place)) {
          auto const bytes = test::slurp(place + "/" + name);
          sm::File::create(copy + "/" + name).write_at(0, std::as_bytes(std::span(bytes)));
        }
        sm::PosixStorage::sync_directory(copy);
        CHECK(sm::PosixStorage::exchange(copy, run));
      } else if (forgotten ==
                 Forgotten::exchange) {  // the old one is removed before the names are synced
        CHECK(sm::PosixStorage::exchange(place, run));
        sm::PosixStorage::remove_all(place);
      } else {  // the old one is removed first
        sm::PosixStorage::remove_all(run);
        sm::PosixStorage::rename(place, run);
      }
    };
    Found found;
    std::map<std::string, int> known;
    cut_power_once("run", root, scratch / "state", body, [](auto&) {}, 200, known, found);
    INFO("forgotten: " << static_cast<int>(forgotten));
    CHECK(found.wrong != "");
    CHECK_FALSE(found.values == old_or_new);
  }
}

TEST_SUITE_END();
