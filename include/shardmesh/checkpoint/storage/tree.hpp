// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <string>
#include <tuple>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Looks at what has a name, without following it if it is a link.
/// @returns false if nothing has that name.
[[nodiscard]] inline bool look_at(std::string const& path, struct stat& status) {
  if (::lstat(path.c_str(), &status) == 0) {
    return true;
  }
  if (errno != ENOENT && errno != ENOTDIR) {
    throw_io(path, "look at");
  }
  return false;
}

[[nodiscard]] inline bool is_same_file(struct stat const& a, struct stat const& b) noexcept {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/// Gives a directory the owner and the rights of another, as far as this process may.
inline void take_rights(struct stat const& from, std::string const& to) noexcept {
  if (::chown(to.c_str(), from.st_uid, from.st_gid) != 0) {
    errno = 0;  // only root may give files away; the rights matter more
  }
  if (::chmod(to.c_str(), from.st_mode & 07777U) != 0) {
    errno = 0;
  }
}

/// Makes `to` a second name of what is called `from`: a hard link to each file and each symbolic link,
/// directories made anew, brought to the disk. A file that allows no second name (another user's, on
/// some systems) is left out; so is what disappears meanwhile.
/// @param device  the file system that the directories must lie on.
/// @throws IoError: of `from` nothing was changed.
inline void link_tree(std::string const& from, std::string const& to, dev_t device) {
  constexpr char what[] = "keep what else is in the directory that is saved to (move it away): ";
  struct stat status{};
  if (!look_at(from, status)) {
    return;
  }
  if (!S_ISDIR(status.st_mode)) {
    bool const linked = ::linkat(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), 0) == 0;
    bool const may_be_left = errno == ENOENT || errno == EPERM || errno == EMLINK ||
                             errno == EOPNOTSUPP || errno == ENOSYS;
    if (!linked && !may_be_left) {
      throw_io(from, what);
    }
    return;
  }
  if (status.st_dev != device) {
    errno = EXDEV;  // a file system of its own is mounted here
    throw_io(from, what);
  }
  if (::mkdir(to.c_str(), 0700) != 0) {
    throw_io(from, what);
  }
  for (std::string const& name : PosixStorage::list(from)) {
    link_tree(from + "/" + name, to + "/" + name, device);
  }
  take_rights(status, to);
  PosixStorage::sync_directory(to);
}

/// `link_tree` for some of what is in the directory `from`, into the directory `to`, which gets the
/// rights of `from`.
inline void link_all(std::string const& from,
                     std::string const& to,
                     std::vector<std::string> const& names) {
  struct stat status{};
  if (!look_at(from, status)) {
    return;
  }
  for (std::string const& name : names) {
    link_tree(from + "/" + name, to + "/" + name, status.st_dev);
  }
  take_rights(status, to);
}

/// What becomes of two things of one name.
enum class OnConflict : std::uint8_t {
  take,       ///< the one that comes replaces the one that is there
  keep_both,  ///< the one that comes gets another name; if it is the older one, it is dropped
};

/// A name beside `path` that nothing has.
[[nodiscard]] inline std::string free_name(std::string const& path) {
  int number = 1;
  while (PosixStorage::exists(path + ".kept-" + std::to_string(number))) {
    ++number;
  }
  return path + ".kept-" + std::to_string(number);
}

inline void move_all(std::string const& from, std::string const& into, OnConflict rule);

/// Moves `from` to `to`, of which there is one already.
inline void move_onto(std::string const& from, std::string const& to, OnConflict rule) {
  struct stat one{};
  struct stat other{};
  if (!look_at(from, one)) {
    return;
  }
  if (!look_at(to, other)) {
    PosixStorage::rename(from, to);
    return;
  }
  if (is_same_file(one, other)) {
    PosixStorage::remove_all(from);
    return;
  }
  if (S_ISDIR(one.st_mode) && S_ISDIR(other.st_mode)) {
    // One of the two was made by `link_tree`. It is the other that programs have open.
    bool const exchanged = rule == OnConflict::take && PosixStorage::try_exchange(from, to);
    move_all(from, to, exchanged ? OnConflict::keep_both : rule);
    return;
  }
  bool const newer = std::tie(one.st_mtim.tv_sec, one.st_mtim.tv_nsec) >
                     std::tie(other.st_mtim.tv_sec, other.st_mtim.tv_nsec);
  bool const is_file = !S_ISDIR(one.st_mode) && !S_ISDIR(other.st_mode);
  if (is_file && rule == OnConflict::take) {
    PosixStorage::rename(from, to);
  } else if (is_file && !newer) {
    PosixStorage::remove_all(from);
  } else {
    PosixStorage::rename(from, free_name(to));
  }
}

/// Moves all that is in a directory into another one, and removes it. What has a second name there
/// loses the one here; of directories of one name the contents are put together.
/// @throws IoError: what was not moved is where it was.
inline void move_all(std::string const& from, std::string const& into, OnConflict rule) {
  for (std::string const& name : PosixStorage::list(from)) {
    std::string const here = from + "/" + name;
    std::string const there = into + "/" + name;
    if (!PosixStorage::rename_to_new(here, there)) {
      move_onto(here, there, rule);
    }
  }
  PosixStorage::remove_empty(from);
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
