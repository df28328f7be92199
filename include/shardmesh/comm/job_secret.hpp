// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <shardmesh/comm/detail/siphash.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

/// What the processes of a job know and nobody else: who does not know it takes no rank's place on a
/// socket, reads nothing that is meant for one, and changes nothing unnoticed.
///
/// It never travels itself: see docs/decisions/0011.
class JobSecret {
 public:
  static constexpr char const* variable = "SHARDMESH_JOB_SECRET";
  static constexpr std::size_t fewest = 16;  ///< bytes

  /// @throws InvalidArgument if it is shorter than 16 bytes.
  explicit JobSecret(std::string text) : text_(std::move(text)) {
    if (text_.size() < fewest) {
      throw InvalidArgument(detail::concat(
          "shardmesh: the job's secret has ", std::to_string(text_.size()),
          " bytes, at least 16 are wanted; make one with: export SHARDMESH_JOB_SECRET=$(openssl "
          "rand -hex 16)"));
    }
  }

  /// 128 bits from the system's source.
  /// @throws CommError
  [[nodiscard]] static JobSecret random() {
    std::array<unsigned char, 16> bytes{};
    fill_random(std::as_writable_bytes(std::span(bytes)));
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (unsigned char const byte : bytes) {
      text += digits[byte >> 4];
      text += digits[byte & 15U];
    }
    return JobSecret(text);
  }

  /// What SHARDMESH_JOB_SECRET says, if it is set.
  /// @throws InvalidArgument as the constructor.
  [[nodiscard]] static std::optional<JobSecret> from_environment() {
    char const* const text = std::getenv(variable);
    return text == nullptr ? std::nullopt : std::optional<JobSecret>(std::in_place, text);
  }

  /// For jobs on one host whose launcher gives none: one of this user on this host, made at its first
  /// use, in a file that only the user can read.
  /// @param directory  whose; made if need be.
  /// @throws CommError if there can be none, or others may have put it there.
  [[nodiscard]] static JobSecret of_this_user(std::string const& directory = user_directory()) {
    ::mkdir(directory.c_str(), 0700);
    require_own(directory, S_IFDIR);
    std::string const path = directory + "/job_secret";
    if (::access(path.c_str(), F_OK) != 0) {
      make_file(directory, path);
    }
    require_own(path, S_IFREG);
    int const file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    std::array<char, 64> text{};
    ssize_t const read = file < 0 ? -1 : ::read(file, text.data(), text.size());
    if (file >= 0) {
      ::close(file);
    }
    if (read < static_cast<ssize_t>(fewest)) {
      refuse(path, "cannot be read, or is too short: remove it");
    }
    return JobSecret(std::string(text.data(), static_cast<std::size_t>(read)));
  }

  [[nodiscard]] static std::string user_directory() {
    return "/tmp/shardmesh-" + std::to_string(::getuid());
  }

  [[nodiscard]] std::string const& text() const noexcept { return text_; }

  /// @throws CommError
  static void fill_random(std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      ssize_t const count = ::getrandom(bytes.data(), bytes.size(), 0);
      if (count > 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(count));
      } else if (errno != EINTR) {
        throw CommError(detail::concat("shardmesh: the system gives no random numbers: ",
                                       std::strerror(errno)));
      }
    }
  }

 private:
  [[noreturn]] static void refuse(std::string const& path, char const* why) {
    throw CommError(detail::concat("shardmesh: the secret of this user's jobs cannot be kept in ",
                                   path, ", which ", why, "; or set SHARDMESH_JOB_SECRET"));
  }

  static void require_own(std::string const& path, mode_t kind) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0) {
      refuse(path, "cannot be made there");
    }
    if ((status.st_mode & S_IFMT) != kind || status.st_uid != ::getuid() ||
        (status.st_mode & 077U) != 0) {
      refuse(path, "is not this user's alone");
    }
  }

  /// Appears whole, and once, whoever else makes it at the same time.
  static void make_file(std::string const& directory, std::string const& path) {
    std::string name = directory + "/new-XXXXXX";
    int const file = ::mkstemp(name.data());  // mode 0600
    std::string const text = file < 0 ? std::string() : random().text();
    bool const good =
        file >= 0 && ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    if (file >= 0) {
      ::close(file);
    }
    if (good) {
      [[maybe_unused]] int const linked =
          ::link(name.c_str(), path.c_str());  // fails if another was faster
    }
    if (file >= 0) {
      ::unlink(name.c_str());
    }
  }

  std::string text_;
};

}  // namespace v0
}  // namespace shardmesh
