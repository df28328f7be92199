// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardmesh/checkpoint/storage/size_signal.hpp>
#include <shardmesh/core/counters.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Throws what the operating system said of a file.
[[noreturn]] inline void throw_io(std::string const& path, std::string const& operation) {
  int const code = errno;
  throw IoError(path, code,
                "shardmesh: cannot " + operation + " " + path + ": " + std::strerror(code));
}

/// Before the operating system sees a path, for which a NUL is the end: it would open, replace or remove what the
/// shorter name stands for.
/// @throws InvalidArgument
inline void refuse_nul(std::string const& path) {
  if (path.find('\0') != std::string::npos) {
    throw InvalidArgument("shardmesh: the path \"" + escaped(path) +
                          "\" holds a NUL, which no name of a file can; give another path");
  }
}

}  // namespace detail

/// An open file; closed with its owner. Reads and writes are at explicit positions and complete:
/// interrupted and short transfers are continued.
class File {
 public:
  /// Opens an existing regular file to read it; a pipe is not waited for. A symbolic link is
  /// followed, wherever it leads, as every program does: the caches of model hubs are made of links.
  /// What must not lead out of a checkpoint is the name of a file that stands in another file; whoever
  /// reads it sees to that (`format::is_plain_file_name`).
  /// @throws IoError
  [[nodiscard]] static File open(std::string const& path) { return open_at(AT_FDCWD, path, path); }

  /// The same for a name in a directory that is open.
  /// @param path  for messages.
  [[nodiscard]] static File open_at(int directory,
                                    std::string const& name,
                                    std::string const& path) {
    detail::refuse_nul(name);
    int const descriptor = ::openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) {
      refuse_dangling(directory, name, path);
    }
    File file(path, descriptor);
    struct stat status{};
    if (::fstat(file.descriptor_, &status) != 0) {
      detail::throw_io(path, "read the size of");
    }
    if (!S_ISREG(status.st_mode)) {
      throw IoError(path, EINVAL,
                    "shardmesh: cannot open " + path +
                        ": it is no regular file: " + std::strerror(EINVAL));
    }
    file.size_ = static_cast<std::uint64_t>(status.st_size);
    file.modified_ = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
    file.number_ = status.st_ino;
    return file;
  }

  /// Makes a new file.
  /// @throws IoError if it exists.
  [[nodiscard]] static File create(std::string const& path) {
    detail::refuse_nul(path);
    return {path, ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)};
  }

  /// Opens an existing file to write parts of it. Several ranks may do so at once.
  /// @throws IoError
  [[nodiscard]] static File open_to_write(std::string const& path) {
    detail::refuse_nul(path);
    return {path, ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW)};
  }

  File(File&& other) noexcept
      : path_(std::move(other.path_)),
        descriptor_(std::exchange(other.descriptor_, -1)),
        size_(other.size_),
        modified_(other.modified_),
        number_(other.number_) {}
  File& operator=(File&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(size_, other.size_);
    std::swap(modified_, other.modified_);
    std::swap(number_, other.number_);
    return *this;
  }
  File(File const&) = delete;
  File& operator=(File const&) = delete;
  ~File() {
    if (descriptor_ >= 0) {
      ::close(descriptor_);
    }
  }

  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  /// Bytes, when it was opened.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  /// When its bytes had last been changed, in nanoseconds since 1970, when it was opened.
  [[nodiscard]] std::int64_t modified() const noexcept { return modified_; }
  /// By which the file system knows it, when it was opened.
  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }

  /// Fills `target` with the bytes from `offset`.
  /// @throws IoError, or CorruptError if the file ends before.
  void read_at(std::uint64_t offset, std::span<std::byte> target) const {
    std::size_t done = 0;
    while (done < target.size()) {
      ssize_t const count = ::pread(descriptor_, target.data() + done, target.size() - done,
                                    static_cast<off_t>(offset + done));
      if (count < 0 && errno == EINTR) {
        continue;
      }
      if (count < 0) {
        detail::throw_io(path_, "read");
      }
      if (count == 0) {
        throw CorruptError(path_, offset + done,
                           path_ + ": the file ends at byte " + std::to_string(offset + done) +
                               ", " + std::to_string(target.size() - done) +
                               " more bytes are needed (truncated file?)");
      }
      done += static_cast<std::size_t>(count);
      detail::counts().storage_read_bytes.add(static_cast<std::size_t>(count));
    }
  }

  /// The bytes [offset, offset + count).
  template <class Bytes = std::vector<std::byte>>
  [[nodiscard]] Bytes read(std::uint64_t offset, std::uint64_t count) const {
    if (offset > size_ || count > size_ - offset) {
      throw CorruptError(path_, size_,
                         path_ + ": the file has " + std::to_string(size_) + " bytes, bytes " +
                             std::to_string(offset) + " to " + std::to_string(offset + count) +
                             " are needed (truncated file?)");
    }
    Bytes bytes(static_cast<std::size_t>(count));
    read_at(offset, {bytes.data(), bytes.size()});
    return bytes;
  }

  /// Writes all of `source` at `offset`.
  /// @throws IoError
  void write_at(std::uint64_t offset, std::span<std::byte const> source) const {
    detail::NoSizeSignal const guard;
    std::size_t done = 0;
    while (done < source.size()) {
      ssize_t const count = ::pwrite(descriptor_, source.data() + done, source.size() - done,
                                     static_cast<off_t>(offset + done));
      if (count < 0 && errno == EINTR) {
        continue;
      }
      if (count <= 0) {
        errno = count == 0 ? EIO : errno;  // a system that writes nothing and does not say why
        detail::throw_io(path_, "write");
      }
      done += static_cast<std::size_t>(count);
      detail::counts().storage_written_bytes.add(static_cast<std::size_t>(count));
    }
  }

  /// Sets the size; what was not written reads as zeros.
  /// @throws IoError
  void resize(std::uint64_t bytes) const {
    detail::NoSizeSignal const guard;
    if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) {
      detail::throw_io(path_, "set the size of");
    }
  }

  /// Brings the bytes to the disk and closes the file.
  /// @throws IoError; the file must then not be trusted.
  void finish() {
    if (::fsync(descriptor_) != 0) {
      detail::throw_io(path_, "bring to the disk");
    }
    if (::close(std::exchange(descriptor_, -1)) != 0) {
      detail::throw_io(path_, "close");
    }
  }

 private:
  /// Throws, and says where it leads, if the name is a link that leads nowhere: in a cache of a hub, to
  /// what was not downloaded. Keeps errno otherwise.
  static void refuse_dangling(int directory, std::string const& name, std::string const& path) {
    int const code = errno;
    std::string target(4096, '\0');
    ssize_t const length = ::readlinkat(directory, name.c_str(), target.data(), target.size());
    if (length >= 0 && (code == ENOENT || code == ELOOP)) {
      target.resize(static_cast<std::size_t>(length));
      throw IoError(path, code,
                    "shardmesh: cannot open " + path + ": it is a symbolic link to " +
                        escaped(target) + ": " + std::strerror(code));
    }
    errno = code;
  }

  File(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {
    if (descriptor_ < 0) {
      detail::throw_io(path_, "open");
    }
  }

  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::int64_t modified_ = 0;
  std::uint64_t number_ = 0;
};

}  // namespace v0
}  // namespace shardmesh
