// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

#include <shardmesh/checkpoint/detail/owned_files.hpp>
#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/storage/file.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/storage/save_lock.hpp>
#include <shardmesh/checkpoint/storage/tree.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Where a save to `path` goes: a link, or a chain of them, stays, and what it leads to is replaced, or
/// made.
/// @throws InvalidArgument for a path without a name of its own, IoError for links in a circle and for
///         one into a directory that is not there.
[[nodiscard]] inline std::string save_target(std::string const& path, char const* operation) {
  std::string target = PosixStorage::follow(path);
  std::string const name = target.substr(target.find_last_of('/') + 1);
  bool const is_link = target != without_trailing_slashes(path);
  std::string const said = is_link ? path + " leads to \"" + target + "\"" : "\"" + path + "\"";
  if (name.empty() || name == "." || name == "..") {
    throw InvalidArgument(std::string(operation) + ": " + said + (is_link ? "," : " is") +
                          " a place without a name of its own, which is what a save replaces; give "
                          "the directory's name");
  }
  if (is_link && !PosixStorage::exists(target) &&
      !PosixStorage::exists(PosixStorage::parent(target))) {
    throw IoError(path, ENOENT,
                  std::string(operation) + ": " + said + ", and there is no " +
                      PosixStorage::parent(target) +
                      "; make that directory (or mount it), or remove the link");
  }
  return target;
}

/// Takes apart a directory that was a checkpoint, or was to become one: its files are removed, what else
/// is in it moves to `directory`, if that is one; else, or if it cannot be there, it is kept beside it.
/// @param rule  OnConflict::take if `leftover` is what programs have seen as `directory` until now.
/// @throws IoError: what was not moved is where it was.
inline void dissolve(std::string const& leftover, std::string const& directory, OnConflict rule) {
  if (!PosixStorage::is_directory(leftover)) {
    PosixStorage::remove_all(leftover);
    return;
  }
  DirectoryNames const names = sort_names(leftover);
  bool const returns = PosixStorage::is_directory(directory);
  for (std::string const& name : names.foreign) {
    std::string const here = leftover + "/" + name;
    std::string const there = directory + "/" + name;
    if (returns && !PosixStorage::rename_to_new(here, there)) {
      move_onto(here, there, rule);
    }
  }
  for (std::string const& name : names.own) {
    PosixStorage::remove_all(leftover + "/" + name);
  }
  if (returns || names.foreign.empty()) {
    PosixStorage::remove_empty(leftover);
  } else {
    PosixStorage::rename(leftover, free_name(directory));
  }
}

/// Removes what a save that failed has left. What cannot be removed now is left to the next save: an
/// error here must not stand in the place of the first one.
inline void remove_quietly(std::string const& path) noexcept {
  try {
    PosixStorage::remove_all(path);
  } catch (...) {  // the next save to that name says why
  }
}

/// `dissolve` in the same way.
inline void dissolve_quietly(std::string const& leftover,
                             std::string const& directory,
                             OnConflict rule) noexcept {
  try {
    dissolve(leftover, directory, rule);
  } catch (...) {  // the next save to that name says why
  }
}

/// Writes a new file and brings it to the disk.
inline void write_file(std::string const& path, std::string_view text) {
  File file = File::create(path);
  file.write_at(0, format::as_bytes(text));
  file.finish();
}

/// Removes what saves to `directory` that were interrupted have left behind; what is somebody else's in
/// it comes back to `directory`.
inline void remove_interrupted(std::string const& directory) {
  std::string const parent = PosixStorage::parent(directory);
  std::string const mark =
      directory.substr(directory.find_last_of('/') + 1) + std::string(PosixStorage::temporary_mark);
  if (!PosixStorage::exists(parent)) {
    return;
  }
  for (std::string const& name : PosixStorage::list(parent)) {
    if (name.starts_with(mark) &&
        name.find_first_not_of("0123456789", mark.size()) == std::string::npos) {
      dissolve(parent + "/" + name, directory, OnConflict::keep_both);
    }
  }
}

/// A name beside `target`, for what is to stand there once it is complete; a directory of that name, if
/// it is to be one, is made.
/// @pre the caller holds the `SaveLock` of the target.
[[nodiscard]] inline std::string make_temporary(std::string const& target,
                                                bool is_directory = true) {
  remove_interrupted(target);
  std::string temporary = PosixStorage::temporary_name(target);
  if (is_directory && !PosixStorage::make_directory(temporary)) {
    throw IoError(temporary, EEXIST,
                  "shardmesh::save: " + temporary +
                      " is being written by another job; two jobs must not save to " + target +
                      " at a time");
  }
  return temporary;
}

/// Makes the directories above a target, and sees to it that nobody else saves to it.
[[nodiscard]] inline SaveLock lock_target(std::string const& target, char const* operation) {
  PosixStorage::make_directories(PosixStorage::parent(target));
  return {target, operation};
}

/// Throws unless a file is there as it was written, before it gets its name: where the file system has no
/// locks another job may have taken it for a leftover.
inline void refuse_other_size(std::string const& path,
                              std::uint64_t written,
                              std::string_view operation) {
  std::uint64_t const found = File::open(path).size();
  if (found != written) {
    throw IoError(path, EIO,
                  concat(operation, ": ", path, " has ", std::to_string(found), " bytes, ",
                         std::to_string(written),
                         " were written; does another job save to the same place?"));
  }
}

/// Gives `directory` its name in one step: an older one keeps its place until then.
/// @returns whether there was an older one, which is now `temporary`.
[[nodiscard]] inline bool give_name(std::string const& temporary, std::string const& directory) {
  if (!PosixStorage::exists(directory)) {
    PosixStorage::rename(temporary, directory);
    return false;
  }
  if (!PosixStorage::exchange(temporary, directory)) {
    throw IoError(directory, ENOSYS,
                  "shardmesh::save: the file system of " + directory +
                      " cannot exchange two directories, so the old checkpoint cannot be replaced "
                      "safely; save to a new directory");
  }
  return true;
}

/// Undoes `give_name`, of which the disk knows nothing yet.
/// @returns whether the names are as they were.
[[nodiscard]] inline bool take_name_back(std::string const& temporary,
                                         std::string const& directory,
                                         bool replaced) noexcept {
  try {
    if (replaced) {
      return PosixStorage::exchange(temporary, directory);
    }
    PosixStorage::rename(directory, temporary);
    return true;
  } catch (...) {
    return false;
  }
}

/// Gives a complete directory its name. If that cannot be brought to the disk, the older one has its
/// place again; it is removed when the new one is safe. What lay in the older one and is no part of a
/// checkpoint lies in the new one too, from its first moment on: files have two names until the older
/// one is gone. What was changed or added in the meantime is moved then.
/// @param temporary  emptied if it must stay: it has become the older one, and cannot be taken back.
/// @throws IoError
inline void publish(std::string& temporary, std::string const& directory) {
  if (PosixStorage::is_directory(directory)) {
    link_all(directory, temporary, sort_names(directory).foreign);
  }
  PosixStorage::sync_directory(temporary);
  bool const replaces = give_name(temporary, directory);
  try {
    PosixStorage::sync_directory(PosixStorage::parent(directory));
  } catch (...) {
    if (!take_name_back(temporary, directory, replaces) && replaces) {
      temporary.clear();
    }
    throw;
  }
  if (replaces) {
    dissolve_quietly(temporary, directory, OnConflict::take);
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
