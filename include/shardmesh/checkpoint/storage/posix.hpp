// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardmesh/checkpoint/storage/file.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Names in a directory, without "." and "..". Closes it.
/// @throws IoError unless all of them could be read; if there is none, what errno says of it.
[[nodiscard]] inline std::vector<std::string> names_in(DIR* directory, std::string const& path) {
  if (directory == nullptr) {
    throw_io(path, "list the directory");
  }
  std::vector<std::string> names;
  errno = 0;
  while (dirent const* const entry = ::readdir(directory)) {
    std::string const name = entry->d_name;
    if (name != "." && name != "..") {
      names.push_back(name);
    }
    errno = 0;
  }
  int const code = errno;
  ::closedir(directory);
  if (code != 0) {
    errno = code;
    throw_io(path, "list the directory");
  }
  return names;
}

/// Paths that differ only in slashes at their ends are one.
[[nodiscard]] inline std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  return path;
}

}  // namespace detail

/// Directories and names on a POSIX file system.
struct PosixStorage {
  /// Is there anything of that name? A symbolic link counts, wherever it leads.
  /// @throws IoError where that cannot be seen (a directory that may not be searched, a disk that does
  ///         not answer, a loop of links): what cannot be looked at is not taken for absent.
  [[nodiscard]] static bool exists(std::string const& path) {
    struct stat status{};
    return look(path, status);
  }

  /// Is it a directory, and no link to one?
  [[nodiscard]] static bool is_directory(std::string const& path) {
    struct stat status{};
    return look(path, status) && S_ISDIR(status.st_mode);
  }

  /// The path that a symbolic link leads to in the end, whether anything is there or not; a path that
  /// is no link as it is, without slashes at its end.
  /// @throws IoError for links that lead in a circle.
  [[nodiscard]] static std::string follow(std::string path) {
    constexpr int most_links = 40;  // as Linux counts
    for (int links = 0; links <= most_links; ++links) {
      path = detail::without_trailing_slashes(std::move(path));
      struct stat status{};
      if (!look(path, status) || !S_ISLNK(status.st_mode)) {
        return path;
      }
      std::string target(4096, '\0');
      ssize_t const size = ::readlink(path.c_str(), target.data(), target.size());
      if (size < 0) {
        detail::throw_io(path, "read the link");
      }
      target.resize(static_cast<std::size_t>(size));
      path = target.starts_with('/') ? target : parent(path) + "/" + target;
    }
    errno = ELOOP;
    detail::throw_io(path, "follow the links of");
  }

  /// @returns whether it is new.
  /// @throws IoError unless the directory exists afterwards.
  static bool make_directory(std::string const& path) {
    detail::refuse_nul(path);
    if (::mkdir(path.c_str(), 0755) == 0) {
      return true;
    }
    int const code = errno;
    struct stat status{};
    if (code == EEXIST && ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
      return false;
    }
    errno = code;
    detail::throw_io(path, "make the directory");
  }

  /// The directory that a path lies in.
  [[nodiscard]] static std::string parent(std::string const& path) {
    std::size_t const slash = path.find_last_of('/');
    return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  }

  /// Stands in the name of what is not yet complete, before the number of a process.
  static constexpr std::string_view temporary_mark = ".tmp-";

  /// A name beside `path` for what is not yet complete; of this process alone.
  [[nodiscard]] static std::string temporary_name(std::string const& path) {
    return path + std::string(temporary_mark) + std::to_string(::getpid());
  }

  /// Makes a directory and those above it that are missing, and brings the names of the new ones to
  /// the disk.
  /// @throws IoError unless it exists afterwards.
  static void make_directories(std::string const& path) {
    if (!exists(parent(path))) {
      make_directories(parent(path));
    }
    if (make_directory(path)) {
      sync_directory(parent(path));
    }
  }

  /// Names in a directory, without "." and "..".
  /// @throws IoError unless all of them could be read.
  [[nodiscard]] static std::vector<std::string> list(std::string const& path) {
    detail::refuse_nul(path);
    return detail::names_in(::opendir(path.c_str()), path);
  }

  /// Brings the names in a directory to the disk.
  static void sync_directory(std::string const& path) {
    int const descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0 || ::fsync(descriptor) != 0) {
      int const code = errno;
      if (descriptor >= 0) {
        ::close(descriptor);
      }
      errno = code;
      detail::throw_io(path, "bring to the disk");
    }
    ::close(descriptor);
  }

  static void rename(std::string const& from, std::string const& to) {
    detail::refuse_nul(from);
    detail::refuse_nul(to);
    if (::rename(from.c_str(), to.c_str()) != 0) {
      detail::throw_io(from, "rename to " + to + " the path");
    }
  }

  /// Gives a path a name that nothing has yet.
  /// @returns false if something has; then nothing was changed.
  [[nodiscard]] static bool rename_to_new(std::string const& from, std::string const& to) {
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
      return true;
    }
    if (errno == EINVAL || errno == ENOSYS) {  // a file system that cannot promise it
      if (exists(to)) {
        return false;
      }
      rename(from, to);
      return true;
    }
    if (errno != EEXIST && errno != ENOTEMPTY) {
      detail::throw_io(from, "rename to " + to + " the path");
    }
    return false;
  }

  /// `exchange`, where a failure of any kind means that it is not to be.
  [[nodiscard]] static bool try_exchange(std::string const& a, std::string const& b) noexcept {
    return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
  }

  /// Exchanges two paths in one step, so that at no moment either is missing.
  /// @returns false where the file system cannot do it.
  [[nodiscard]] static bool exchange(std::string const& a, std::string const& b) {
    if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) {
      return true;
    }
    if (errno != EINVAL && errno != ENOSYS) {
      detail::throw_io(a, "exchange with " + b + " the path");
    }
    return false;
  }

  /// Removes a directory that has nothing in it. What is already gone is no error.
  static void remove_empty(std::string const& path) {
    if (::rmdir(path.c_str()) != 0 && errno != ENOENT) {
      detail::throw_io(path, "remove the directory");
    }
  }

  /// Removes a directory and the files in it. Subdirectories are removed the same way; symbolic
  /// links are removed, not followed. What is already gone is no error.
  static void remove_all(std::string const& path) {
    struct stat status{};
    if (!look(path, status)) {
      return;
    }
    if (!S_ISDIR(status.st_mode)) {
      if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        detail::throw_io(path, "remove");
      }
      return;
    }
    for (std::string const& name : list(path)) {
      remove_all(path + "/" + name);
    }
    remove_empty(path);
  }

 private:
  /// @returns false if nothing has that name.
  [[nodiscard]] static bool look(std::string const& path, struct stat& status) {
    detail::refuse_nul(path);
    if (::lstat(path.c_str(), &status) == 0) {
      return true;
    }
    if (errno != ENOENT && errno != ENOTDIR) {
      detail::throw_io(path, "look at");
    }
    return false;
  }
};

}  // namespace v0
}  // namespace shardmesh
