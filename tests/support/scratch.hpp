// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace test {

namespace fs = std::filesystem;

/// A new directory, removed with its owner.
class Scratch {
 public:
  Scratch() : Scratch(fs::temp_directory_path()) {}
  explicit Scratch(fs::path const& place) {
    std::string pattern = (place / "shardmesh-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string operator/(std::string const& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace test
