// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// What was read has been replaced, or removed, in the meantime: it can be read again from its start.
class SHARDMESH_EXPORT Replaced : public IoError {
 public:
  /// @param differs  ranks have read different things, which may be no more than that.
  Replaced(std::string const& path, std::string const& message, bool differs = false)
      : IoError(path, ESTALE, message), differs_(differs) {}

  [[nodiscard]] bool differs() const noexcept { return differs_; }

 private:
  bool differs_;
};

}  // namespace detail

/// An open directory. It stays the one that its path led to when it was opened, whatever has that name
/// later: files are opened in it, not by their paths. So all files that are read through one are of one
/// checkpoint, though another may be put into its place at any moment; one that was replaced loses its files,
/// but never gets those of another.
class Directory {
 public:
  /// Links are followed.
  /// @param path  empty: where the process works.
  /// @throws IoError
  [[nodiscard]] static Directory open(std::string const& path) {
    char const* const name = path.empty() ? "." : path.c_str();
    int const descriptor = ::open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) {
      detail::throw_io(path, "open the directory");
    }
    return {path, descriptor};
  }

  Directory(Directory&& other) noexcept
      : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}
  Directory& operator=(Directory&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  Directory(Directory const&) = delete;
  Directory& operator=(Directory const&) = delete;
  ~Directory() {
    if (descriptor_ >= 0) {
      ::close(descriptor_);
    }
  }

  /// By which it was opened.
  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  /// Of a name in it, for messages.
  [[nodiscard]] std::string path_of(std::string const& name) const {
    return path_.empty() || path_.ends_with('/') ? path_ + name : path_ + "/" + name;
  }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

  /// As `File::open`.
  [[nodiscard]] File open_file(std::string const& name) const {
    return File::open_at(descriptor_, name, path_of(name));
  }

  /// Is there anything of that name? A link counts, wherever it leads.
  /// @throws IoError where that cannot be seen.
  [[nodiscard]] bool has(std::string const& name) const {
    struct stat status{};
    if (::fstatat(descriptor_, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
      return true;
    }
    if (errno != ENOENT && errno != ENOTDIR) {
      detail::throw_io(path_of(name), "look at");
    }
    return false;
  }

  /// Names in it, without "." and "..".
  /// @throws IoError unless all of them could be read.
  [[nodiscard]] std::vector<std::string> list() const {
    int const again = ::openat(descriptor_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (again < 0) {
      detail::throw_io(path_, "list the directory");
    }
    DIR* const opened = ::fdopendir(again);
    if (opened == nullptr) {
      int const code = errno;
      ::close(again);
      errno = code;
    }
    return detail::names_in(opened, path_);
  }

  /// Does the path still lead to it?
  [[nodiscard]] bool is_current() const noexcept {
    struct stat now{};
    struct stat own{};
    return ::stat(path_.empty() ? "." : path_.c_str(), &now) == 0 &&
           ::fstat(descriptor_, &own) == 0 && now.st_dev == own.st_dev && now.st_ino == own.st_ino;
  }

 private:
  Directory(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  std::string path_;
  int descriptor_ = -1;
};

namespace detail {

/// Calls `read()`, which reads from a directory. What fails because another has taken its place is
/// `Replaced`.
template <class Read>
decltype(auto) read_in(Directory const& directory, Read&& read) {
  try {
    return std::forward<Read>(read)();
  } catch (Replaced const&) {
    throw;
  } catch (Error const& error) {
    if (directory.is_current()) {
      throw;
    }
    throw Replaced(directory.path(), "shardmesh: " + directory.path() +
                                         " was replaced or removed while it was read; load again "
                                         "when it is not (" +
                                         error.what() + ")");
  }
}

/// How often a load starts again because what it reads was replaced.
inline constexpr int most_attempts = 20;

/// Calls `attempt()` until what it reads is not replaced meanwhile; on every rank equally often, since
/// `agree_on_failure` throws `Replaced` on all of them or on none.
template <class Attempt>
decltype(auto) read_until_whole(Attempt&& attempt) {
  for (int number = 1;; ++number) {
    try {
      return attempt();
    } catch (Replaced const& error) {
      if (number < most_attempts) {
        continue;
      }
      if (error.differs()) {
        throw MismatchError(error.what());
      }
      throw;
    }
  }
}

}  // namespace detail

}  // namespace v0
}  // namespace shardmesh
