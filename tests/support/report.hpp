// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What the bodies that run on every engine need: a report, and a directory that ranks share.

#include <unistd.h>

#include <filesystem>
#include <string>

#include <shardmesh/comm/communicator.hpp>

namespace test {

namespace sm = shardmesh;

/// Collects what is wrong.
class Report {
 public:
  void expect(bool good, std::string const& what) {
    if (!good && problem_.empty()) {
      problem_ = what;
    }
  }
  /// Expects that nothing differs.
  void expect_equal(std::string const& difference, std::string const& what) {
    expect(difference.empty(), what + ": " + difference);
  }
  [[nodiscard]] std::string const& problem() const { return problem_; }

 private:
  std::string problem_;
};

/// A directory for one test of all ranks, removed at the end.
template <class Comm>
class SharedDirectory {
 public:
  explicit SharedDirectory(Comm const& world) : world_(world) {
    std::string const mine =
        (std::filesystem::temp_directory_path() / ("shardmesh-rows-" + std::to_string(::getpid())))
            .string();
    path_ = sm::all_gather_text(world, mine).front();
    if (world.rank() == 0) {
      std::filesystem::create_directories(path_);
    }
    world_.barrier();
  }
  SharedDirectory(SharedDirectory const&) = delete;
  SharedDirectory& operator=(SharedDirectory const&) = delete;
  ~SharedDirectory() {
    world_.barrier();
    if (world_.rank() == 0) {
      std::filesystem::remove_all(path_);
    }
  }
  [[nodiscard]] std::string file(std::string const& name) const { return path_ + "/" + name; }

 private:
  Comm world_;
  std::string path_;
};

}  // namespace test
