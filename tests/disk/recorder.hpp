// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The calls that this program makes of the file system, recorded and made to fail: recorder.cpp takes the place of the
// C library's functions.

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "disk_model.hpp"

namespace test {

/// Records what this program does below one directory, and keeps what the disk looks like after it.
class Recorder {
 public:
  void begin(std::string root) {
    std::lock_guard const lock(mutex_);
    root_ = std::move(root);
    state_ = {};
    operations_.clear();
    descriptors_.clear();
    next_ = 1;
    read_in(root_, 0);
    start_ = state_;
    active_ = true;
  }
  void end() {
    std::lock_guard const lock(mutex_);
    active_ = false;
  }
  /// Frees what it holds, which is each file twice, and all that was written.
  void forget() {
    std::lock_guard const lock(mutex_);
    start_ = {};
    state_ = {};
    std::vector<DiskOperation>().swap(operations_);  // clear() and `= {}` keep its memory
    descriptors_.clear();
  }

  [[nodiscard]] DiskState const& start() const { return start_; }
  [[nodiscard]] DiskState const& state() const { return state_; }
  [[nodiscard]] std::vector<DiskOperation> const& operations() const { return operations_; }

  /// @returns the number of what a path below the root leads to; -1 if nothing, or elsewhere.
  [[nodiscard]] int node_of(std::string const& path) const {
    auto const [directory, name] = place_of(path);
    if (directory < 0 || name.empty()) {
      return directory;
    }
    auto const& names = state_.nodes.at(directory).names;
    auto const found = names.find(name);
    return found == names.end() ? -1 : found->second;
  }

  /// The directory and the last name of a path; (-1, ...) outside the root.
  [[nodiscard]] std::pair<int, std::string> place_of(std::string const& path) const {
    if (!path.starts_with(root_)) {
      return {-1, {}};
    }
    int at = 0;
    std::string name;
    std::string rest = path.substr(root_.size()) + "/";
    std::size_t begin = 0;
    while (begin < rest.size()) {
      std::size_t const slash = rest.find('/', begin);
      std::string const part = rest.substr(begin, slash - begin);
      begin = slash + 1;
      if (part.empty() || part == ".") {
        continue;
      }
      if (!name.empty()) {
        auto const& names = state_.nodes.at(at).names;
        auto const found = names.find(name);
        if (found == names.end()) {
          return {-1, {}};
        }
        at = found->second;
      }
      name = part;
    }
    return {at, name};
  }

  /// Lets call number `number` from now on fail with `code`, and with `for_good` all that follow. With 0 it reads
  /// or writes nothing; only calls that read or write are counted then.
  void fail(long number, int code, bool for_good) {
    std::lock_guard const lock(mutex_);
    fault_ = {number, code, for_good, 0, 0};
  }
  /// What became of it: how many calls there were, and how many of them failed.
  [[nodiscard]] std::pair<long, long> faults() {
    std::lock_guard const lock(mutex_);
    return {fault_.calls, fault_.struck};
  }

  /// Makes a system call, unless it is to fail, and notes it.
  /// @param concerns  whether it is about something below the root.
  /// @param moves     whether it reads or writes.
  template <class Do, class Note>
  long call(bool concerns, bool moves, Do system, Note note) {
    std::lock_guard const lock(mutex_);
    if (active_ && concerns && (moves || fault_.code != 0)) {
      long const number = fault_.calls++;
      if (number == fault_.at || (fault_.for_good && number > fault_.at)) {
        ++fault_.struck;
        errno = fault_.code;
        return fault_.code == 0 ? 0 : -1;
      }
    }
    long const result = system();
    if (active_ && result >= 0) {
      int const code = errno;
      note(result);
      errno = code;
    }
    return result;
  }
  [[nodiscard]] bool is_below(std::string const& path) {
    std::lock_guard const lock(mutex_);
    return active_ && path.starts_with(root_);
  }
  [[nodiscard]] bool is_below(int descriptor) {
    std::lock_guard const lock(mutex_);
    return active_ && node_at(descriptor) >= 0;
  }

  void done(DiskOperation one) {
    state_.apply(one, false);
    operations_.push_back(std::move(one));
  }
  void opened(int descriptor, std::string const& path, bool created, bool emptied) {
    int node = node_of(path);
    if (node < 0 && created) {
      auto const [directory, name] = place_of(path);
      if (directory >= 0) {
        node = next_++;
        done({.kind = DiskOperation::Kind::make,
              .node = node,
              .directory = directory,
              .name = name});
      }
    } else if (node >= 0 && emptied) {
      done({.kind = DiskOperation::Kind::resize, .node = node});
    }
    descriptors_[descriptor] = node;
  }
  void made_directory(std::string const& path) {
    auto const [directory, name] = place_of(path);
    if (directory >= 0) {
      done({.kind = DiskOperation::Kind::make,
            .node = next_++,
            .directory = directory,
            .name = name,
            .is_directory = true});
    }
  }
  [[nodiscard]] int node_at(int descriptor) const {
    auto const found = descriptors_.find(descriptor);
    return found == descriptors_.end() ? -1 : found->second;
  }
  void closed(int descriptor) { descriptors_.erase(descriptor); }
  void two_names(DiskOperation::Kind kind, std::string const& from, std::string const& to) {
    auto const [directory, name] = place_of(from);
    auto const [other, new_name] = place_of(to);
    if (directory < 0 && other < 0) {
      return;
    }
    REQUIRE(directory >= 0);
    REQUIRE(other >= 0);
    if (kind == DiskOperation::Kind::link) {
      done({.kind = kind, .node = node_of(from), .directory = other, .name = new_name});
    } else {
      done({.kind = kind, .directory = directory, .other = other, .name = name, .to = new_name});
    }
  }
  void removed(std::string const& path) {
    auto const [directory, name] = place_of(path);
    if (directory >= 0) {
      done({.kind = DiskOperation::Kind::remove, .directory = directory, .name = name});
    }
  }

 private:
  void read_in(std::string const& path, int directory) {
    for (auto const& entry : fs::directory_iterator(path)) {
      int const node = next_++;
      bool const is_directory = entry.is_directory() && !entry.is_symlink();
      state_.nodes[node] = {is_directory, is_directory ? "" : slurp(entry.path()), {}};
      state_.nodes[directory].names[entry.path().filename()] = node;
      if (is_directory) {
        read_in(entry.path(), node);
      }
    }
  }

  struct Fault {
    long at = -1;
    int code = 0;
    bool for_good = false;
    long calls = 0;
    long struck = 0;
  };

  std::recursive_mutex mutex_;
  Fault fault_;
  bool active_ = false;
  std::string root_;
  DiskState start_;
  DiskState state_;
  std::vector<DiskOperation> operations_;
  std::map<int, int> descriptors_;  // to nodes
  int next_ = 1;
};

extern Recorder recorder;

}  // namespace test
