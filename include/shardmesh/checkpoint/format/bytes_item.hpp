// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <string>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Reads the archive of a value that is no tensor. What is made of anything but plain values comes
/// back opaque, unread.
/// @throws CorruptError for damage.
[[nodiscard]] SHARDMESH_INLINE Value read_bytes_item(ByteSpan item,
                                                     std::string const& path = "(memory)",
                                                     std::uint64_t position = 0);

/// The archive of a value, as torch.save writes it.
[[nodiscard]] SHARDMESH_INLINE Bytes write_bytes_item(Value const& value);

}  // namespace format
}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/format/detail/bytes_item_bodies.hpp>
#endif
