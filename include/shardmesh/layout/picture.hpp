// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/core/config.hpp>
#include <shardmesh/layout/layout.hpp>

namespace shardmesh {
inline namespace v0 {

/// How `picture` draws.
struct PictureStyle {
  bool color = false;           ///< ANSI background colours, one for each set of owners
  index_t most_blocks = 32;     ///< along one dimension; a layout with more is listed by rank
  index_t lines_per_block = 2;  ///< height of the longest block
  index_t most_ranks = 64;      ///< listed by rank; the others are counted
  index_t most_width = 0;       ///< columns of text; a wider picture is folded. 0: however wide
};

namespace detail {

/// The points of dimension `d` at which ownership can change, with 0 and the extent.
[[nodiscard]] SHARDMESH_INLINE std::vector<index_t> boundaries(Layout const& layout, std::size_t d);

/// "rank 3 holds nothing" of a layout that is drawn; nothing if each rank holds something.
[[nodiscard]] SHARDMESH_INLINE std::string empty_ranks(Layout const& layout);

}  // namespace detail

/// A picture of who holds what: a grid of blocks with their owners for tensors that are cut along at
/// most two dimensions, one line a rank otherwise. Rows run down, columns to the right; "0:4" are
/// indices 0 to 3.
[[nodiscard]] SHARDMESH_INLINE std::string picture(Layout const& layout, PictureStyle style = {});

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/layout/detail/picture_bodies.hpp>
#endif
