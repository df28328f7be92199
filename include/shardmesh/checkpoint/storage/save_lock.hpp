// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Lets one save at a time write to a place: a lock of a hidden file beside it, which the system gives up when
/// its holder ends, however that ends. The file is removed with the lock; one that a killed process
/// has left is taken over by the next.
///
/// Where the file system has no locks, nothing is locked, and what is published is checked all the same. On
/// NFS a lock holds between hosts. A child that is forked during a save shares the lock until it executes another
/// program or ends, or the save is done.
class SaveLock {
 public:
  /// @param target     what is saved to, whose directory exists.
  /// @param operation  for messages.
  /// @throws IoError with EBUSY if another save holds it, or of the file.
  SaveLock(std::string const& target, char const* operation) : path_(path_of(target)) {
    constexpr int most_tries = 1000;
    int tries = 1;
    while (!take(target, operation)) {  // another has removed the file in between
      if (++tries > most_tries) {
        throw IoError(path_, EBUSY,
                      concat(operation, ": cannot lock ", path_, ": others come first"));
      }
    }
  }
  SaveLock(SaveLock&& other) noexcept
      : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}
  SaveLock(SaveLock const&) = delete;
  SaveLock& operator=(SaveLock const&) = delete;
  SaveLock& operator=(SaveLock&&) = delete;
  ~SaveLock() {
    if (descriptor_ >= 0) {
      ::unlink(path_.c_str());  // before the lock is free, so that it is this one's
      ::flock(descriptor_, LOCK_UN);
      ::close(descriptor_);
    }
  }

  /// The file for a target.
  [[nodiscard]] static std::string path_of(std::string const& target) {
    std::size_t const slash = target.find_last_of('/');
    std::size_t const name = slash == target.npos ? 0 : slash + 1;
    return concat(target.substr(0, name), '.', target.substr(name), suffix);
  }
  /// The name of the target beside which a name would be the file; empty for other names.
  [[nodiscard]] static std::string target_of(std::string_view name) {
    bool const is_lock =
        name.starts_with('.') && name.ends_with(suffix) && name.size() > 1 + suffix.size();
    return std::string(is_lock ? name.substr(1, name.size() - 1 - suffix.size()) : "");
  }

 private:
  static constexpr std::string_view suffix = ".save-lock";

  /// @returns false if it must be tried again.
  [[nodiscard]] bool take(std::string const& target, char const* operation) {
    int const opened = open_file();
    if (::flock(opened, LOCK_EX | LOCK_NB) != 0) {
      int const code = errno;
      if (code == EINTR) {
        ::close(opened);
        return false;
      }
      if (code == EWOULDBLOCK) {
        std::string const holder = holder_of(opened);
        ::close(opened);
        throw IoError(target, EBUSY,
                      concat(operation, ": another save to ", target, " is going on (", holder,
                             "); wait for it, or, if it is stuck, end it, or save to another "
                             "directory"));
      }
      ::close(opened);  // no locks here
      ::unlink(path_.c_str());
      return true;
    }
    if (!is_named(opened)) {
      ::close(opened);
      return false;
    }
    descriptor_ = opened;
    note_holder();
    return true;
  }

  /// Does the file still have its name? Who held the lock before may have removed it.
  [[nodiscard]] bool is_named(int opened) const {
    struct stat own{};
    struct stat named{};
    bool const known = ::fstat(opened, &own) == 0;
    if (known && ::lstat(path_.c_str(), &named) == 0) {
      return own.st_ino == named.st_ino && own.st_dev == named.st_dev;
    }
    int const code = errno;
    if (known && code == ENOENT) {
      return false;
    }
    ::unlink(path_.c_str());
    ::close(opened);
    errno = code;
    throw_io(path_, "look at");
  }

  [[nodiscard]] int open_file() const {
    constexpr int flags = O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    int opened = ::open(path_.c_str(), flags | O_RDWR, 0644);
    if (opened < 0 && errno == EACCES) {  // perhaps another user's, who may be gone
      opened = ::open(path_.c_str(), O_CLOEXEC | O_NOFOLLOW | O_RDONLY);
      errno = EACCES;
    }
    if (opened < 0) {
      throw_io(path_, "lock");
    }
    return opened;
  }

  /// For the messages of others; that it could not be written is nobody's loss.
  void note_holder() const noexcept {
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0) {
      host[0] = '?';
    }
    std::array<char, 320> text{};
    int const size = std::snprintf(text.data(), text.size(), "process %ld on %s",
                                   static_cast<long>(::getpid()), host.data());
    if (::ftruncate(descriptor_, 0) != 0 ||
        ::pwrite(descriptor_, text.data(), static_cast<std::size_t>(std::max(size, 0)), 0) < 0) {
      errno = 0;
    }
  }

  [[nodiscard]] static std::string holder_of(int opened) {
    std::array<char, 320> text{};
    ssize_t const size = ::pread(opened, text.data(), text.size(), 0);
    return size > 0 ? escaped(std::string_view(text.data(), static_cast<std::size_t>(size)))
                    : "nobody knows whose";
  }

  std::string path_;
  int descriptor_ = -1;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
