// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/open_files.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What the end of a file holds, which is what differs between saves: the length and a CRC of its last
/// bytes; "-" for one that cannot be read.
[[nodiscard]] inline std::string end_of_file(Directory const& directory, std::string const& name) {
  constexpr std::uint64_t most = 4096;
  try {
    File const file = directory.open_file(name);
    std::uint64_t const count = std::min(most, file.size());
    return concat(std::to_string(file.size()), ':',
                  hex32(format::crc32_of(file.read(file.size() - count, count))));
  } catch (Error const&) {
    return "-";
  }
}

/// What some bytes of files are, which are spread over each from its first to its last: tells files of the
/// same headers from each other where there are no checksums.
/// @param files  of which each has a `name`.
template <class Files>
[[nodiscard]] std::string sample_of(OpenFiles& open,
                                    Directory const& directory,
                                    Files const& files) {
  constexpr std::uint64_t most_bytes = 512;
  constexpr std::size_t samples = 64;  // of all files together, besides their ends
  std::uint32_t crc = 0;
  std::uint64_t bytes = 0;
  std::uint64_t const pieces = 1 + samples / std::max<std::size_t>(1, files.size());
  for (auto const& one : files) {
    auto const opened = open.open(directory, one.name);
    File const& file = *opened;
    std::uint64_t const count = std::min(most_bytes, file.size());
    std::uint64_t const last = file.size() - count;
    bytes += file.size();
    for (std::uint64_t i = 0; i <= pieces; ++i) {
      crc = format::crc32_of(file.read(last / pieces * i + last % pieces * i / pieces, count), crc);
    }
  }
  return concat(std::to_string(bytes), " bytes, of which a sample has the CRC ", hex32(crc));
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
