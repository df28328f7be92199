// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>
#include <utility>

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

/// Root of every exception that shardmesh throws. `what()` says what is wrong, where, and how to
/// mend it; `where()` is the place in the source that found it. Names of files and what stands in them come
/// into messages: control characters are written out, so that they cannot command a terminal.
class SHARDMESH_EXPORT Error : public std::runtime_error {
 public:
  explicit Error(std::string const& message,
                 std::source_location where = std::source_location::current())
      : std::runtime_error(detail::printable(message)), where_(where) {}

  [[nodiscard]] std::source_location const& where() const noexcept { return where_; }

 private:
  std::source_location where_;
};

/// An argument breaks the contract of a call (a placement out of range, a wrong mesh size ...).
class SHARDMESH_EXPORT InvalidArgument : public Error {
 public:
  explicit InvalidArgument(std::string const& message,
                           std::source_location where = std::source_location::current())
      : Error(message, where) {}
};

/// Shapes, strides or sizes do not fit each other.
class SHARDMESH_EXPORT ShapeError : public InvalidArgument {
 public:
  explicit ShapeError(std::string const& message,
                      std::source_location where = std::source_location::current())
      : InvalidArgument(message, where) {}
};

/// Ranks called the same collective operation with different arguments.
class SHARDMESH_EXPORT MismatchError : public Error {
 public:
  explicit MismatchError(std::string const& message,
                         std::source_location where = std::source_location::current())
      : Error(message, where) {}
};

/// A key is missing in, or unexpected by, a state dict or a checkpoint.
class SHARDMESH_EXPORT KeyError : public Error {
 public:
  explicit KeyError(std::string const& message,
                    std::source_location where = std::source_location::current())
      : Error(message, where) {}
};

/// Communication with other ranks failed.
class SHARDMESH_EXPORT CommError : public Error {
 public:
  explicit CommError(std::string const& message,
                     std::source_location where = std::source_location::current())
      : Error(message, where) {}
};

/// Another rank failed or died; `rank()` names it (in the numbering of the whole job).
class SHARDMESH_EXPORT RankFailed : public CommError {
 public:
  RankFailed(int rank,
             std::string const& message,
             std::source_location where = std::source_location::current())
      : CommError(message, where), rank_(rank) {}

  [[nodiscard]] int rank() const noexcept { return rank_; }

 private:
  int rank_;
};

/// Not every rank arrived at an operation in time.
class SHARDMESH_EXPORT TimeoutError : public CommError {
 public:
  explicit TimeoutError(std::string const& message,
                        std::source_location where = std::source_location::current())
      : CommError(message, where) {}
};

/// The operating system refused a file operation; `path()` and `code()` (errno) say which.
class SHARDMESH_EXPORT IoError : public Error {
 public:
  IoError(std::string path,
          int code,
          std::string const& message,
          std::source_location where = std::source_location::current())
      : Error(message, where), path_(std::move(path)), code_(code) {}

  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  [[nodiscard]] int code() const noexcept { return code_; }

 private:
  std::string path_;
  int code_;
};

/// Stored bytes are not what their format demands; `path()` and `offset()` say where.
class SHARDMESH_EXPORT CorruptError : public Error {
 public:
  CorruptError(std::string path,
               std::uint64_t offset,
               std::string const& message,
               std::source_location where = std::source_location::current())
      : Error(message, where), path_(std::move(path)), offset_(offset) {}

  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }

 private:
  std::string path_;
  std::uint64_t offset_;
};

/// Well-formed input, or a legal request, that this library or this machine cannot serve.
class SHARDMESH_EXPORT UnsupportedError : public Error {
 public:
  explicit UnsupportedError(std::string const& message,
                            std::source_location where = std::source_location::current())
      : Error(message, where) {}
};

/// A device or its runtime failed; `code()` is the native status.
class SHARDMESH_EXPORT DeviceError : public Error {
 public:
  DeviceError(int code,
              std::string const& message,
              std::source_location where = std::source_location::current())
      : Error(message, where), code_(code) {}

  [[nodiscard]] int code() const noexcept { return code_; }

 private:
  int code_;
};

}  // namespace v0
}  // namespace shardmesh
