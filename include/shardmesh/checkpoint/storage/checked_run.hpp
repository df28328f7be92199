// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Bytes of a file that are read from the first to the last, into whatever place they are to have, and summed on the way
/// while the processor has them in its cache. One thread uses it at a time; several may have runs of one file.
class CheckedRun {
 public:
  /// Hears of each sum: its number, and the CRC of the bytes that it is of. Throws if it is wrong.
  using Check = std::function<void(std::uint64_t number, std::uint32_t crc)>;

  /// @param directory  of the file; must outlive the run.
  /// @param step       so many bytes have a sum of their own (the last ones may be fewer).
  /// @param check      none: nothing is summed.
  CheckedRun(Directory const& directory,
             std::shared_ptr<File const> file,
             std::uint64_t offset,
             std::uint64_t count,
             std::uint64_t step,
             Check check)
      : directory_(&directory),
        file_(std::move(file)),
        at_(offset),
        left_(count),
        step_(step),
        check_(std::move(check)) {}

  /// Fills `target` with the next bytes.
  /// @pre there are so many.
  /// @throws IoError, CorruptError; `Replaced` if the directory was.
  void read(std::span<std::byte> target) {
    read_in(*directory_, [&] {
      while (!target.empty()) {
        std::span<std::byte> const part = target.first(static_cast<std::size_t>(
            std::min<std::uint64_t>({target.size(), most, step_ - in_step_})));
        file_->read_at(at_, part);
        take(part);
        target = target.subspan(part.size());
      }
    });
  }

 private:
  static constexpr std::uint64_t most = std::uint64_t{1} << 19;  // what caches hold

  void take(std::span<std::byte const> part) {
    at_ += part.size();
    left_ -= part.size();
    if (!check_) {
      return;
    }
    crc_ = format::crc32_of(part, crc_);
    in_step_ += part.size();
    if (in_step_ == step_ || left_ == 0) {
      check_(number_++, crc_);
      crc_ = 0;
      in_step_ = 0;
    }
  }

  Directory const* directory_;
  std::shared_ptr<File const> file_;
  std::uint64_t at_;
  std::uint64_t left_;
  std::uint64_t step_;
  Check check_;
  std::uint64_t in_step_ = 0;
  std::uint64_t number_ = 0;
  std::uint32_t crc_ = 0;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
