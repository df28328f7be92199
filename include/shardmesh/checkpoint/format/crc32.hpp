// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>

#include <zlib.h>

#if defined(SHARDMESH_HAVE_ISAL)
#include <isa-l/crc.h>
#endif

#include <shardmesh/checkpoint/format/bytes.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// CRC-32 (the zip one) of `bytes`, going on from the CRC of what stands before them. By ISA-L, at the speed of memory, where
/// the build has it and defines SHARDMESH_HAVE_ISAL (in all translation units or in none); else by zlib.
[[nodiscard]] inline std::uint32_t crc32_of(ByteSpan bytes, std::uint32_t before = 0) noexcept {
  if (bytes.empty()) {
    return before;
  }
  auto const* const first = reinterpret_cast<unsigned char const*>(bytes.data());
#if defined(SHARDMESH_HAVE_ISAL)
  return ::crc32_gzip_refl(before, first, bytes.size());
#else
  return static_cast<std::uint32_t>(::crc32_z(before, first, bytes.size()));
#endif
}

/// CRC-32 of a run of bytes from those of its two parts; `second_bytes` is the second part's size.
[[nodiscard]] inline std::uint32_t combine_crc32(std::uint32_t first,
                                                 std::uint32_t second,
                                                 std::uint64_t second_bytes) noexcept {
  return static_cast<std::uint32_t>(
      ::crc32_combine(first, second, static_cast<z_off_t>(second_bytes)));
}

/// CRC-32 of so many zeros: the register starts as ones, and is inverted at the end.
[[nodiscard]] inline std::uint32_t crc32_of_zeros(std::uint64_t count) noexcept {
  return combine_crc32(0xffffffffU, 0xffffffffU, count);
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
