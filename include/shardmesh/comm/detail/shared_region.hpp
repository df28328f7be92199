// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardmesh/comm/job_secret.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Memory that processes of one host share, all zero at first. Where the system does not give it (no /dev/shm, none in
/// common, none left), the region is empty.
class SharedRegion {
 public:
  SharedRegion() = default;

  /// A new one, that only processes of this user can open.
  [[nodiscard]] static SharedRegion create(std::size_t bytes) {
    SharedRegion region;
    std::string name = "/dev/shm/shardmesh-" + JobSecret::random().text();
    int const file = ::open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0) {
      return region;
    }
    region.name_ = std::move(name);
    // Memory that is not there would end the process where it is touched.
    if (::posix_fallocate(file, 0, static_cast<off_t>(bytes)) == 0) {
      region.map(file, bytes);
    }
    ::close(file);
    if (!region) {
      region.hide();  // nobody must take it for memory
    }
    return region;
  }

  /// What another process has created under this name, with at least as many bytes, and not yet hidden.
  [[nodiscard]] static SharedRegion open(std::string const& name, std::size_t bytes) {
    SharedRegion region;
    int const file = ::open(name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (file >= 0) {
      struct stat status{};
      if (::fstat(file, &status) == 0 && static_cast<std::uint64_t>(status.st_size) >= bytes) {
        region.map(file, bytes);
      }
      ::close(file);
    }
    return region;
  }

  SharedRegion(SharedRegion&& other) noexcept
      : name_(std::exchange(other.name_, {})),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  SharedRegion& operator=(SharedRegion&& other) noexcept {
    std::swap(name_, other.name_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  SharedRegion(SharedRegion const&) = delete;
  SharedRegion& operator=(SharedRegion const&) = delete;
  ~SharedRegion() {
    hide();
    if (data_ != nullptr) {
      ::munmap(data_, bytes_);
    }
  }

  [[nodiscard]] explicit operator bool() const noexcept { return data_ != nullptr; }
  [[nodiscard]] std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }

  /// Of one that was created; empty for one that was opened.
  [[nodiscard]] std::string const& name() const noexcept { return name_; }

  /// Takes the name away: nobody can open it any more, and nothing is left when the processes end.
  void hide() noexcept {
    if (!name_.empty()) {
      ::unlink(name_.c_str());
      name_.clear();
    }
  }

 private:
  void map(int file, std::size_t bytes) noexcept {
    void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (data != MAP_FAILED) {
      data_ = data;
      bytes_ = bytes;
    }
  }

  std::string name_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
