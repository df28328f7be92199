// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include "recorder.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <string>

namespace test {

Recorder recorder;

}  // namespace test

namespace {

using test::DiskOperation;
using test::recorder;
using Kind = DiskOperation::Kind;

/// A path that a call names by a directory that is open.
std::string path_at(int directory, char const* path) {
  if (directory == AT_FDCWD || *path == '/') {
    return path;
  }
  std::string target(4096, '\0');
  std::string const link = "/proc/self/fd/" + std::to_string(directory);
  ssize_t const size = ::readlink(link.c_str(), target.data(), target.size());
  target.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
  return target + "/" + path;
}

int open_recorded(int directory, char const* path, int flags, mode_t mode) {
  return static_cast<int>(recorder.call(
      recorder.is_below(path_at(directory, path)), false,
      [&] { return ::syscall(SYS_openat, directory, path, flags, mode); },
      [&](long descriptor) {
        recorder.opened(static_cast<int>(descriptor), path_at(directory, path),
                        (flags & O_CREAT) != 0, (flags & O_TRUNC) != 0);
      }));
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & O_CREAT) != 0 ? static_cast<mode_t>(va_arg(arguments, unsigned)) : 0;
}

}  // namespace

// In the place of the C library's, for all that this program does.
extern "C" int open(char const* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t const mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_recorded(AT_FDCWD, path, flags, mode);
}
extern "C" int openat(int directory, char const* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t const mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_recorded(directory, path, flags, mode);
}
extern "C" int close(int descriptor) {
  return static_cast<int>(recorder.call(
      false, false, [&] { return ::syscall(SYS_close, descriptor); },
      [&](long) { recorder.closed(descriptor); }));
}
extern "C" ssize_t pwrite(int descriptor, void const* data, std::size_t size, off_t at) {
  return recorder.call(
      recorder.is_below(descriptor), true,
      [&] { return ::syscall(SYS_pwrite64, descriptor, data, size, at); },
      [&](long count) {
        if (int const node = recorder.node_at(descriptor); node >= 0) {
          recorder.done({.kind = Kind::write,
                         .node = node,
                         .at = static_cast<std::uint64_t>(at),
                         .bytes = std::string(static_cast<char const*>(data),
                                              static_cast<std::size_t>(count))});
        }
      });
}
extern "C" int ftruncate(int descriptor, off_t size) noexcept {
  return static_cast<int>(recorder.call(
      recorder.is_below(descriptor), false,
      [&] { return ::syscall(SYS_ftruncate, descriptor, size); },
      [&](long) {
        if (int const node = recorder.node_at(descriptor); node >= 0) {
          recorder.done(
              {.kind = Kind::resize, .node = node, .at = static_cast<std::uint64_t>(size)});
        }
      }));
}
extern "C" int fsync(int descriptor) {
  return static_cast<int>(recorder.call(
      recorder.is_below(descriptor), false, [&] { return ::syscall(SYS_fsync, descriptor); },
      [&](long) {
        if (int const node = recorder.node_at(descriptor); node >= 0) {
          recorder.done({.kind = Kind::sync, .node = node});
        }
      }));
}
extern "C" int fdatasync(int descriptor) {
  return fsync(descriptor);
}
extern "C" int mkdirat(int directory, char const* path, mode_t mode) noexcept {
  return static_cast<int>(recorder.call(
      recorder.is_below(path_at(directory, path)), false,
      [&] { return ::syscall(SYS_mkdirat, directory, path, mode); },
      [&](long) { recorder.made_directory(path_at(directory, path)); }));
}
extern "C" int mkdir(char const* path, mode_t mode) noexcept {
  return mkdirat(AT_FDCWD, path, mode);
}
extern "C" int unlinkat(int directory, char const* path, int flags) noexcept {
  return static_cast<int>(recorder.call(
      recorder.is_below(path_at(directory, path)), false,
      [&] { return ::syscall(SYS_unlinkat, directory, path, flags); },
      [&](long) { recorder.removed(path_at(directory, path)); }));
}
extern "C" int unlink(char const* path) noexcept {
  return unlinkat(AT_FDCWD, path, 0);
}
extern "C" int rmdir(char const* path) noexcept {
  return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
extern "C" int renameat2(
    int from_at, char const* from, int to_at, char const* to, unsigned flags) noexcept {
  return static_cast<int>(recorder.call(
      recorder.is_below(path_at(from_at, from)), false,
      [&] { return ::syscall(SYS_renameat2, from_at, from, to_at, to, flags); },
      [&](long) {
        recorder.two_names((flags & RENAME_EXCHANGE) != 0 ? Kind::exchange : Kind::move,
                           path_at(from_at, from), path_at(to_at, to));
      }));
}
extern "C" int renameat(int from_at, char const* from, int to_at, char const* to) noexcept {
  return renameat2(from_at, from, to_at, to, 0);
}
extern "C" int rename(char const* from, char const* to) noexcept {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}
extern "C" int linkat(
    int from_at, char const* from, int to_at, char const* to, int flags) noexcept {
  return static_cast<int>(recorder.call(
      recorder.is_below(path_at(from_at, from)), false,
      [&] { return ::syscall(SYS_linkat, from_at, from, to_at, to, flags); },
      [&](long) { recorder.two_names(Kind::link, path_at(from_at, from), path_at(to_at, to)); }));
}
extern "C" int link(char const* from, char const* to) noexcept {
  return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

extern "C" ssize_t pread(int descriptor, void* data, std::size_t size, off_t at) {
  return recorder.call(
      recorder.is_below(descriptor), true,
      [&] { return ::syscall(SYS_pread64, descriptor, data, size, at); }, [](long) {});
}
extern "C" int fstat(int descriptor, struct stat* status) noexcept {
  return static_cast<int>(recorder.call(
      recorder.is_below(descriptor), false,
      [&] { return ::syscall(SYS_fstat, descriptor, status); }, [](long) {}));
}
extern "C" int lstat(char const* path, struct stat* status) noexcept {
  return static_cast<int>(recorder.call(
      recorder.is_below(path), false, [&] { return ::syscall(SYS_lstat, path, status); },
      [](long) {}));
}
