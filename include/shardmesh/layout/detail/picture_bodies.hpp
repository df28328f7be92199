// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of layout/picture.hpp.

#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/layout/layout.hpp>
#include <shardmesh/layout/picture.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Adds a point to sorted ones, once.
inline void add_point(std::vector<index_t>& points, index_t point) {
  std::size_t at = 0;
  for (std::size_t count = points.size(); count > 0;) {
    std::size_t const half = count / 2;
    bool const behind = points[at + half] < point;
    at += behind ? half + 1 : 0;
    count = behind ? count - half - 1 : half;
  }
  if (at == points.size() || points[at] != point) {
    points.insert(points.begin() + static_cast<std::ptrdiff_t>(at), point);
  }
}

SHARDMESH_INLINE std::vector<index_t> boundaries(Layout const& layout, std::size_t d) {
  std::vector<index_t> points;
  add_point(points, 0);
  add_point(points, layout.shape()[d]);
  for (index_t rank = 0; rank < layout.ranks(); ++rank) {
    for (Piece const& piece : layout.pieces(unravel(rank, layout.mesh()))) {
      add_point(points, piece.box.offset[d]);
      add_point(points, piece.box.offset[d] + piece.box.extent[d]);
    }
  }
  return points;
}

[[nodiscard]] inline std::string range_text(index_t lo, index_t hi) {
  return concat(std::to_string(lo), ':', std::to_string(hi));
}

/// "ranks 0 2"; of more than eight the first seven, the last, and how many there are.
[[nodiscard]] inline std::string owners_text(std::vector<index_t> const& owners) {
  std::string text = owners.size() == 1 ? "rank" : "ranks";
  bool const many = owners.size() > 8;
  for (std::size_t i = 0; i < (many ? 7 : owners.size()); ++i) {
    text += concat(' ', std::to_string(owners[i]));
  }
  return many ? concat(text, " ... ", std::to_string(owners.back()), " (",
                       std::to_string(owners.size()), ')')
              : text;
}

[[nodiscard]] inline std::string centred(std::string const& text, std::size_t width) {
  std::size_t const left = (width - detail::smaller(width, text.size())) / 2;
  std::string line(left, ' ');
  line += text;
  line.resize(detail::larger(width, line.size()), ' ');
  return line;
}

/// Draws a grid of blocks: one row of blocks for each range of the first dimension drawn, one
/// column for each range of the second.
class BlockPicture {
 public:
  BlockPicture(Layout const& layout,
               std::size_t row_dim,
               std::size_t column_dim,
               PictureStyle style)
      : layout_(layout),
        row_dim_(row_dim),
        column_dim_(column_dim),
        style_(style),
        rows_(boundaries(layout, row_dim)),
        columns_(row_dim == column_dim ? std::vector<index_t>{0, 1}
                                       : boundaries(layout, column_dim)) {}

  [[nodiscard]] bool fits() const {
    auto const most = static_cast<std::size_t>(style_.most_blocks);
    return rows_.size() >= 2 && columns_.size() >= 2 && rows_.size() <= most + 1 &&
           columns_.size() <= most + 1;
  }

  [[nodiscard]] std::string draw() const {
    std::size_t width = 8;
    index_t longest = 1;
    for (std::size_t r = 0; r + 1 < rows_.size(); ++r) {
      longest = detail::larger(longest, rows_[r + 1] - rows_[r]);
      for (std::size_t c = 0; c + 1 < columns_.size(); ++c) {
        width = detail::larger(width, owners_text(owners(r, c)).size() + 2);
      }
    }
    std::size_t margin = 0;
    for (std::size_t r = 0; r + 1 < rows_.size(); ++r) {
      margin = detail::larger(margin, range_text(rows_[r], rows_[r + 1]).size() + 1);
    }
    std::size_t const blocks = columns_.size() - 1;
    std::size_t band = blocks;  // of columns beside each other
    if (auto const most = static_cast<std::size_t>(style_.most_width); most > 0) {
      band = most > margin + 1 ? (most - margin - 1) / (width + 1) : 0;
      band = detail::larger<std::size_t>(1, detail::smaller(band, blocks));
    }
    std::string text;
    for (std::size_t first = 0; first < blocks; first += band) {
      text += concat(first == 0 ? "" : "\n", draw_band(first, detail::smaller(first + band, blocks),
                                                       width, margin, longest));
    }
    return text;
  }

 private:
  /// The columns from `first` to before `last`.
  [[nodiscard]] std::string draw_band(std::size_t first,
                                      std::size_t last,
                                      std::size_t width,
                                      std::size_t margin,
                                      index_t longest) const {
    std::string rule(margin, ' ');
    for (std::size_t c = first; c < last; ++c) {
      rule += concat('+', std::string(width, '-'));
    }
    rule += "+\n";

    std::string text;
    if (row_dim_ != column_dim_) {
      text += std::string(margin, ' ');
      for (std::size_t c = first; c < last; ++c) {
        text += concat(' ', centred(range_text(columns_[c], columns_[c + 1]), width));
      }
      text += "\n";
    }
    text += rule;
    for (std::size_t r = 0; r + 1 < rows_.size(); ++r) {
      index_t const lines =
          detail::larger<index_t>(1, (rows_[r + 1] - rows_[r]) * style_.lines_per_block / longest);
      for (index_t line = 0; line < lines; ++line) {
        std::string const label =
            line == (lines - 1) / 2 ? range_text(rows_[r], rows_[r + 1]) : std::string();
        text += concat(label, std::string(margin - label.size(), ' '));
        for (std::size_t c = first; c < last; ++c) {
          auto const holders = owners(r, c);
          std::string const cell =
              centred(line == (lines - 1) / 2 ? owners_text(holders) : std::string(), width);
          text += concat('|', style_.color ? painted(cell, holders.front()) : cell);
        }
        text += "|\n";
      }
      text += rule;
    }
    return text;
  }

  [[nodiscard]] std::vector<index_t> owners(std::size_t r, std::size_t c) const {
    Box box = Box::whole(layout_.shape());
    box.offset[row_dim_] = rows_[r];
    box.extent[row_dim_] = rows_[r + 1] - rows_[r];
    if (row_dim_ != column_dim_) {
      box.offset[column_dim_] = columns_[c];
      box.extent[column_dim_] = columns_[c + 1] - columns_[c];
    }
    return layout_.owners(box);
  }

  /// The number of the owners' set: their place in the mesh dimensions that cut.
  [[nodiscard]] index_t set_of(index_t owner) const {
    Coordinate const coordinate = unravel(owner, layout_.mesh());
    index_t set = 0;
    for (std::size_t m = 0; m < coordinate.size(); ++m) {
      bool const cuts = layout_.placements()[m].is_shard();
      set = cuts ? set * layout_.mesh()[m] + coordinate[m] : set;
    }
    return set;
  }

  [[nodiscard]] std::string painted(std::string const& cell, index_t owner) const {
    static constexpr int colors[] = {153, 223, 157, 217, 189, 229, 159, 225};
    return concat("\x1b[30;48;5;", std::to_string(colors[set_of(owner) % 8]), 'm', cell, "\x1b[0m");
  }

  Layout const& layout_;
  std::size_t row_dim_;
  std::size_t column_dim_;
  PictureStyle style_;
  std::vector<index_t> rows_;
  std::vector<index_t> columns_;
};

SHARDMESH_INLINE std::string empty_ranks(Layout const& layout) {
  std::vector<index_t> empty;
  for (index_t rank = 0; rank < layout.ranks(); ++rank) {
    if (volume(layout.local_shape(unravel(rank, layout.mesh()))) == 0) {
      empty.push_back(rank);
    }
  }
  return empty.empty() ? std::string()
                       : concat(owners_text(empty),
                                empty.size() == 1 ? " holds nothing\n" : " hold nothing\n");
}

/// One line a rank: its coordinate and the pieces it holds, at most eight of them.
[[nodiscard]] inline std::string list_by_rank(Layout const& layout, PictureStyle style) {
  std::string text;
  index_t const listed = detail::smaller(layout.ranks(), style.most_ranks);
  for (index_t rank = 0; rank < listed; ++rank) {
    Coordinate const coordinate = unravel(rank, layout.mesh());
    text += concat("rank ", std::to_string(rank), " at ", to_string(coordinate), ": ",
                   to_string(layout.local_shape(coordinate)));
    std::vector<Piece> const pieces = layout.pieces(coordinate);
    for (std::size_t i = 0; i < detail::smaller<std::size_t>(pieces.size(), 8); ++i) {
      text += concat(' ', to_string(pieces[i].box));
    }
    text +=
        pieces.size() > 8 ? concat(" and ", std::to_string(pieces.size() - 8), " more\n") : "\n";
  }
  return listed == layout.ranks()
             ? text
             : concat(text, "and ", std::to_string(layout.ranks() - listed), " more ranks\n");
}

}  // namespace detail

SHARDMESH_INLINE std::string picture(Layout const& layout, PictureStyle style) {
  std::string text = to_string(layout) + "\n";
  std::vector<std::size_t> cut;
  for (Cut const& one : layout.order()) {
    auto const d = static_cast<std::size_t>(one.tensor_dim);
    if (cut.empty() || cut.back() != d) {
      cut.push_back(d);
    }
  }
  for (std::size_t d = 0; d < layout.shape().size() && cut.size() < 2; ++d) {
    if (!detail::contains(cut, d)) {
      cut.push_back(d);
    }
  }
  if (cut.empty() || cut.size() > 2 || volume(layout.shape()) == 0) {
    return detail::concat(text, detail::list_by_rank(layout, style));
  }
  std::size_t const down = detail::smaller(cut.front(), cut.back());
  std::size_t const right = detail::larger(cut.front(), cut.back());
  detail::BlockPicture const blocks(layout, down, right, style);
  if (!blocks.fits()) {
    return detail::concat(text, detail::list_by_rank(layout, style));
  }
  if (layout.shape().size() > 2) {
    text += detail::concat("dimensions ", std::to_string(down), " (down) and ",
                           std::to_string(right), " (right); the others are whole\n");
  }
  return detail::concat(text, blocks.draw(), detail::empty_ranks(layout));
}

}  // namespace v0
}  // namespace shardmesh
