// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

#include <fcntl.h>
#include <unistd.h>

#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/storage/size_signal.hpp>
#include <shardmesh/core/counters.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Addresses, places and sizes of what goes past the page cache are multiples of this.
inline constexpr std::size_t direct_alignment = 4096;

/// While it lives, writes to a file go past the page cache, where its file system can do that. One thread writes
/// to the file at that time.
class PastCache {
 public:
  explicit PastCache(File const& file)
      : descriptor_(file.descriptor()), flags_(::fcntl(descriptor_, F_GETFL)) {
    is_on_ = flags_ >= 0 && ::fcntl(descriptor_, F_SETFL, flags_ | O_DIRECT) == 0;
  }
  PastCache(PastCache const&) = delete;
  PastCache& operator=(PastCache const&) = delete;
  ~PastCache() {
    if (is_on_) {
      ::fcntl(descriptor_, F_SETFL, flags_);
    }
  }

  [[nodiscard]] explicit operator bool() const noexcept { return is_on_; }

 private:
  int descriptor_;
  int flags_;
  bool is_on_;
};

/// Writes whole blocks past the page cache as far as the file system takes them.
/// @pre the place and the address are aligned, as the size is.
/// @returns bytes that were written; what is left must go the usual way, which also finds out what is wrong
///          with it.
[[nodiscard]] inline std::size_t write_past_cache(File const& file,
                                                  std::uint64_t offset,
                                                  std::span<std::byte const> source) {
  NoSizeSignal const guard;
  PastCache const past(file);
  std::size_t done = 0;
  while (past && done < source.size()) {
    ssize_t const count = ::pwrite(file.descriptor(), source.data() + done, source.size() - done,
                                   static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      break;
    }
    done += static_cast<std::size_t>(count);
    counts().storage_written_bytes.add(static_cast<std::size_t>(count));
    if (done % direct_alignment != 0) {
      break;
    }
  }
  return done;
}

/// Writes all of `source`: whole blocks past the page cache, where that is possible and worth it, so that they are
/// on their way to the disk at once; what is before and behind them as usual.
/// @pre `source` lies in memory as in the file: both at the same distance from a multiple of `direct_alignment`.
/// @throws IoError
inline void write_blocks(File const& file,
                         std::uint64_t offset,
                         std::span<std::byte const> source) {
  constexpr std::size_t least = std::size_t{1} << 18;  // below, the cache is quicker
  std::size_t const before = std::min<std::size_t>(
      (direct_alignment - offset % direct_alignment) % direct_alignment, source.size());
  std::size_t const blocks = (source.size() - before) / direct_alignment * direct_alignment;
  std::size_t done = 0;
  if (blocks >= least) {
    file.write_at(offset, source.first(before));
    done = before + write_past_cache(file, offset + before, source.subspan(before, blocks));
  }
  file.write_at(offset + done, source.subspan(done));
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
