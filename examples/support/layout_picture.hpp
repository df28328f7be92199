// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// A layout as a picture (SVG): every block in the colour of the rank that holds it, as stripes where several do.

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/layout/picture.hpp>
#include <shardmesh/plan/holding.hpp>

#include "svg.hpp"

namespace tool {

namespace sm = shardmesh;

/// The two dimensions to draw: the first that some stage cuts, or simply the first.
inline std::vector<std::size_t> drawn_dims(std::vector<sm::Holding> const& stages) {
  std::vector<std::size_t> dims;
  auto const add = [&dims](std::size_t d) {
    if (dims.size() < 2 && std::find(dims.begin(), dims.end(), d) == dims.end()) {
      dims.push_back(d);
    }
  };
  for (sm::Holding const& stage : stages) {
    for (sm::Cut const& cut : stage.layout().order()) {
      add(static_cast<std::size_t>(cut.tensor_dim));
    }
  }
  for (std::size_t d = 0; d < stages.front().layout().shape().size(); ++d) {
    add(d);
  }
  std::sort(dims.begin(), dims.end());
  return dims;
}

/// Draws who holds which block, in a square of `side`; where more than one rank does, as stripes.
inline void draw_holding(Svg& svg,
                         sm::Holding const& holding,
                         std::vector<std::size_t> const& dims,
                         double x0,
                         double y0,
                         double side) {
  sm::Layout const& layout = holding.layout();
  sm::Shape const& shape = layout.shape();
  auto const points = [&](std::size_t i) {
    return i < dims.size() ? sm::detail::boundaries(layout, dims[i])
                           : std::vector<sm::index_t>{0, 1};
  };
  auto const rows = points(0);
  auto const columns = points(1);
  auto const scale = [side](std::vector<sm::index_t> const& along) {
    return side / static_cast<double>(std::max<sm::index_t>(1, along.back()));
  };
  for (std::size_t r = 0; r + 1 < rows.size(); ++r) {
    for (std::size_t c = 0; c + 1 < columns.size(); ++c) {
      sm::Box box = sm::Box::whole(shape);
      for (std::size_t i = 0; i < dims.size(); ++i) {
        auto const& along = i == 0 ? rows : columns;
        std::size_t const at = i == 0 ? r : c;
        box.offset[dims[i]] = along[at];
        box.extent[dims[i]] = along[at + 1] - along[at];
      }
      auto const owners = layout.owners(box);
      if (owners.empty()) {
        continue;
      }
      double const y = y0 + static_cast<double>(rows[r]) * scale(rows);
      double const h = static_cast<double>(rows[r + 1] - rows[r]) * scale(rows);
      double const x = x0 + static_cast<double>(columns[c]) * scale(columns);
      double const w = static_cast<double>(columns[c + 1] - columns[c]) * scale(columns);
      double const stripe = w / static_cast<double>(owners.size());
      for (std::size_t i = 0; i < owners.size(); ++i) {
        int const rank = holding.rank_at(owners[i]);
        svg.rect(x + static_cast<double>(i) * stripe, y, stripe, h, color_of(rank),
                 sm::detail::concat("rank ", std::to_string(rank), ' ', to_string(box)));
        std::string const label = std::to_string(rank);
        if (h >= 12 && stripe >= 8.0 * static_cast<double>(label.size())) {
          svg.text(x + (static_cast<double>(i) + 0.5) * stripe, y + h / 2 + 4, label, "middle");
        }
      }
    }
  }
}

/// The picture of one layout. Meshes of more than 64 ranks are too many to see.
inline std::string svg_of(sm::Layout const& layout) {
  if (layout.ranks() > 64) {
    throw sm::InvalidArgument("shardmesh layout: a picture of more than 64 ranks shows nothing; "
                              "use --format text or json");
  }
  Svg svg;
  sm::Holding const holding(layout);
  constexpr double side = 320;
  svg.text(20, 28, to_string(layout), "start", 16);
  auto const dims = drawn_dims({holding});
  if (sm::volume(layout.shape()) > 0) {
    draw_holding(svg, holding, dims, 20, 44, side);
  }
  double y = 44 + side + 20;
  if (dims.size() == 2 && layout.shape().size() > 2) {
    svg.text(20, y,
             sm::detail::concat("dimension ", std::to_string(dims[0]), " runs down, ",
                                std::to_string(dims[1]), " to the right"),
             "start", 11);
    y += 18;
  }
  if (std::string empty = sm::detail::empty_ranks(layout); !empty.empty()) {
    empty.pop_back();
    svg.text(20, y, empty, "start", 11);
  }
  return svg.done();
}

}  // namespace tool
