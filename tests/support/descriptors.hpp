// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// File descriptors of the test itself: which are open, and how few more there may be.

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <string>

namespace test {

/// The descriptors of this process that lead to files below `directory`.
inline int open_below(std::string const& directory) {
  int count = 0;
  for (auto const& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the iterator's own
    std::string const path = std::filesystem::read_symlink(entry.path(), gone);
    count += path.starts_with(directory) ? 1 : 0;
  }
  return count;
}

/// Lets this process open only `more` files at a time, for as long as it is there.
class FewDescriptors {
 public:
  explicit FewDescriptors(int more) {
    int highest = 0;
    for (auto const& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      highest = std::max(highest, std::stoi(entry.path().filename()));
    }
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit now = before_;
    now.rlim_cur = static_cast<rlim_t>(highest + more);  // the highest was the iterator's
    ::setrlimit(RLIMIT_NOFILE, &now);
  }
  FewDescriptors(FewDescriptors const&) = delete;
  FewDescriptors& operator=(FewDescriptors const&) = delete;
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

}  // namespace test
