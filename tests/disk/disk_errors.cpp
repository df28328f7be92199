// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A disk that refuses: every call that a save or a load makes of the file system fails, in turn, once and from then on.
// All ranks are told, by the name of the file; what was there stays; the next save works.
#include <shardmesh/checkpoint/storage/posix.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "../support/sanitizers.hpp"
#include "recorder.hpp"
#include "states.hpp"

namespace sm = shardmesh;

using test::held;
using test::recorder;

TEST_SUITE_BEGIN("checkpoint.disk_errors");

namespace {

std::size_t open_files() {
  test::fs::directory_iterator const all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

struct Tally {
  long calls = 0;    ///< that can fail
  long refused = 0;  ///< runs in which the ranks were told
  std::string wrong;
};

/// Runs `save(path, 2, 2)` over a state of 1 again and again, with another call failing each time.
template <class Save>
Tally refuse_each_call(std::string const& name, Save save) {
  Tally tally;
  std::vector<int> const codes = test::sanitized
                                     ? std::vector<int>{EIO}
                                     : std::vector<int>{EIO, ENOSPC, EDQUOT, EACCES, EROFS, 0};
  for (int const code : codes) {
    for (bool const for_good : {false, true}) {
      for (long number = 0;; ++number) {
        test::Scratch const scratch(test::memory());
        std::string const root = test::fs::canonical(scratch / "") / "disk";
        test::fs::create_directory(root);
        std::string const path = root + "/" + name;
        save(path, 1, 2);
        std::size_t const files = open_files();
        recorder.begin(root);
        recorder.fail(number, code, for_good);
        std::string const said = test::error_of<sm::Error>([&] { save(path, 2, 2); });
        auto const [calls, struck] = recorder.faults();
        recorder.fail(-1, 0, false);
        recorder.end();
        if (struck == 0) {
          tally.calls = std::max(tally.calls, number);
          break;
        }
        auto const wrong = [&](std::string const& what) {
          if (tally.wrong.empty()) {
            tally.wrong = std::string(code == 0 ? "nothing written" : std::strerror(code)) +
                          (for_good ? " from call " : " in call ") + std::to_string(number) + ": " +
                          what + "; said: " + said;
          }
        };
        std::string why;
        int const value = held(path, why);
        bool const refused = said != "no error";
        tally.refused += refused ? 1 : 0;
        // What could not be done says so, names a path, and leaves the old state; or it was not needed.
        if (refused ? value != 1 && value != 2 : value != 2) {
          wrong("the path holds " + std::to_string(value) + " " + why);
        }
        if (refused && said.find(root) == std::string::npos) {
          wrong("no path is named");
        }
        if (open_files() != files) {
          wrong("files stay open");
        }
        std::string const again = test::error_of<sm::Error>([&] { save(path, 3, 2); });
        if (held(path, why) != 3 || sm::PosixStorage::list(root).size() != 1) {
          wrong("the next save: " + again + ", " + why + ", " +
                std::to_string(sm::PosixStorage::list(root).size()) + " names");
        }
      }
    }
  }
  MESSAGE(name << ": " << tally.calls << " calls of a save, " << tally.refused << " saves refused");
  return tally;
}

}  // namespace

TEST_CASE("every call of a save fails, once and for good: all are told, nothing is lost") {
  Tally const tally = refuse_each_call("run", test::save);
  CHECK(tally.wrong == "");
  CHECK(tally.calls > 20);
  CHECK(tally.refused > 20);
}

TEST_CASE("every call of a save in the background fails") {
  Tally const tally = refuse_each_call("run", test::save_behind);
  CHECK(tally.wrong == "");
  CHECK(tally.refused > 20);
}

TEST_CASE("every call of a save of safetensors fails") {
  Tally const file = refuse_each_call("model.safetensors", test::save_file);
  CHECK(file.wrong == "");
  CHECK(file.refused > 5);
  Tally const hub = refuse_each_call("model", test::save_hub);
  CHECK(hub.wrong == "");
  CHECK(hub.refused > 10);
}

TEST_CASE("every call of a load fails: all are told, and no tensor is changed") {
  for (bool const file : {false, true}) {
    test::Scratch const scratch(test::memory());
    std::string const root = test::fs::canonical(scratch / "") / "disk";
    test::fs::create_directory(root);
    std::string const path = root + (file ? "/model.safetensors" : "/run");
    file ? test::save_file(path, 1, 2) : test::save(path, 1, 2);
    long refused = 0;
    for (int const code : {EIO, EACCES, 0}) {
      for (bool const for_good : {false, true}) {
        for (long number = 0;; ++number) {
          std::size_t const files = open_files();
          recorder.begin(root);
          recorder.fail(number, code, for_good);
          std::vector<int> values(2);
          std::vector<std::string> said(2);
          sm::launch(sm::threads{2}, [&](auto& world) {
            auto const rank = static_cast<std::size_t>(world.rank());
            sm::StateDict dict = test::state_of(7);
            said[rank] = test::error_of<sm::Error>([&] { sm::load_any(world, path, dict); });
            values[rank] = dict.at("w").tensor().template get<sm::Tensor<int>>()->span()[0];
          });
          auto const [calls, struck] = recorder.faults();
          recorder.fail(-1, 0, false);
          recorder.end();
          INFO("call " << number << ", " << (code == 0 ? "nothing read" : std::strerror(code))
                       << ": " << said[0]);
          CHECK(open_files() == files);
          if (struck == 0) {
            CHECK(values == std::vector<int>{1, 1});
            break;
          }
          bool const told = said[0] != "no error";
          refused += told ? 1 : 0;
          CHECK(told == (said[1] != "no error"));
          CHECK(values == (told ? std::vector<int>{7, 7} : std::vector<int>{1, 1}));
          if (told) {
            CHECK(said[0].find(root) != std::string::npos);
          }
        }
      }
    }
    CHECK(refused > 20);
  }
}

TEST_SUITE_END();
