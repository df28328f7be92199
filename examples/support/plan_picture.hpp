// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// A plan as a picture: the tensor before and after each exchange, every block in the colour of the rank that holds
// it, and a table of the bytes that each rank sends each other.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include <shardmesh/layout/picture.hpp>
#include <shardmesh/plan/cost.hpp>

namespace tool {

namespace sm = shardmesh;

/// "1.5 MiB".
inline std::string in_words(sm::index_t bytes) {
  constexpr std::array<char const*, 6> units{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), value < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", value,
                units[unit]);
  return text.data();
}

class Svg {
 public:
  void rect(
      double x, double y, double w, double h, std::string const& fill, std::string const& title) {
    body_ += sm::detail::concat("<rect x=\"", num(x), "\" y=\"", num(y), "\" width=\"", num(w),
                                "\" height=\"", num(h), "\" fill=\"", fill,
                                "\" stroke=\"#fff\"><title>", title, "</title></rect>\n");
    grow(x + w, y + h);
  }
  /// @param anchor  start, middle or end.
  void text(double x, double y, std::string const& words, char const* anchor, int size = 12) {
    body_ +=
        sm::detail::concat("<text x=\"", num(x), "\" y=\"", num(y), "\" text-anchor=\"", anchor,
                           "\" font-size=\"", std::to_string(size), "\">", words, "</text>\n");
    double const width = 0.62 * size * static_cast<double>(words.size());
    grow(x + (*anchor == 's' ? width : *anchor == 'm' ? width / 2 : 0), y + 4);
  }
  void arrow(double x1, double x2, double y) {
    body_ += sm::detail::concat("<path d=\"M", num(x1), ' ', num(y), " H", num(x2),
                                " m-8 -5 l8 5 l-8 5\" fill=\"none\" "
                                "stroke=\"#333\" stroke-width=\"2\"/>\n");
  }
  [[nodiscard]] std::string done() const {
    std::string const w = num(width_ + 20);
    std::string const h = num(height_ + 20);
    return sm::detail::concat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", w, "\" height=\"", h,
        "\" viewBox=\"0 0 ", w, ' ', h,
        "\" font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" "
        "fill=\"#fff\"/>\n",
        body_, "</svg>\n");
  }

 private:
  static std::string num(double value) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.1f", value);
    return text.data();
  }
  void grow(double x, double y) {
    width_ = std::max(width_, x);
    height_ = std::max(height_, y);
  }

  std::string body_;
  double width_ = 0;
  double height_ = 0;
};

/// Colours far apart for neighbours: steps of the golden angle around the circle of hues.
inline std::string color_of(int rank) {
  return sm::detail::concat("hsl(", std::to_string((rank * 137) % 360), ",60%,",
                            std::to_string(72 - rank % 3 * 8), "%)");
}

/// The two dimensions to draw: the first that some stage cuts, or simply the first.
inline std::vector<std::size_t> drawn_dims(sm::Plan const& plan) {
  std::vector<std::size_t> dims;
  auto const add = [&dims](std::size_t d) {
    if (dims.size() < 2 && std::find(dims.begin(), dims.end(), d) == dims.end()) {
      dims.push_back(d);
    }
  };
  for (sm::Holding const& stage : plan.stages) {
    for (sm::Cut const& cut : stage.layout().order()) {
      add(static_cast<std::size_t>(cut.tensor_dim));
    }
  }
  for (std::size_t d = 0; d < plan.from().layout().shape().size(); ++d) {
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

/// The picture. Meshes of more than 64 ranks are too many to see.
inline std::string svg_of(sm::Plan const& plan, sm::DType dtype) {
  sm::index_t const ranks = std::max(plan.from().rank_limit(), plan.to().rank_limit());
  if (ranks > 64) {
    throw sm::InvalidArgument(
        "shardmesh plan: a picture of more than 64 ranks shows nothing; use --format text or json");
  }
  Svg svg;
  std::size_t const bytes = size_of(dtype);
  sm::PlanCost const cost = cost_of(plan, bytes);
  svg.text(20, 28,
           sm::detail::concat(to_string(plan.from().layout().shape()), " of ", to_string(dtype)),
           "start", 16);
  svg.text(20, 48,
           sm::detail::concat(in_words(cost.moved), " move in ", std::to_string(cost.messages),
                              " messages; at most ", in_words(cost.most_received),
                              " into one rank (lower bound ", in_words(cost.least_received), "), ",
                              in_words(cost.most_staging), " of temporary memory"),
           "start");
  constexpr double side = 220;
  constexpr double gap = 70;
  auto const dims = drawn_dims(plan);
  double x = 20;
  for (std::size_t stage = 0; stage < plan.stages.size(); ++stage) {
    sm::Holding const& holding = plan.stages[stage];
    svg.text(x, 82, to_string(holding.layout().placements()), "start");
    svg.text(
        x, 98,
        sm::detail::concat("on mesh ", to_string(holding.layout().mesh()), ranks_in_words(holding)),
        "start", 11);
    draw_holding(svg, holding, dims, x, 110, side);
    if (stage + 1 < plan.stages.size()) {
      svg.arrow(x + side + 12, x + side + gap - 12, 110 + side / 2);
    }
    x += side + gap;
  }
  if (dims.size() == 2 && plan.from().layout().shape().size() > 2) {
    svg.text(20, 110 + side + 16,
             sm::detail::concat("dimension ", std::to_string(dims[0]), " runs down, ",
                                std::to_string(dims[1]), " to the right"),
             "start", 11);
  }

  // Who sends how much to whom.
  auto const pairs = traffic_of(plan, bytes);
  sm::index_t most = 1;
  for (sm::PairTraffic const& pair : pairs) {
    most = std::max(most, pair.bytes);
  }
  double const cell = ranks <= 16 ? 34 : 14;
  double const left = 60;
  double const top = 110 + side + 70;
  svg.text(left, top - 26, "bytes from a rank (down) to another (right)", "start");
  for (sm::index_t rank = 0; rank < ranks; ++rank) {
    double const at = static_cast<double>(rank) * cell;
    if (ranks <= 16 || rank % 8 == 0) {
      svg.text(left + at + cell / 2, top - 6, std::to_string(rank), "middle", 11);
      svg.text(left - 8, top + at + cell / 2 + 4, std::to_string(rank), "end", 11);
    }
    for (sm::index_t peer = 0; peer < ranks; ++peer) {
      svg.rect(left + static_cast<double>(peer) * cell, top + at, cell, cell, "#f2f2f2", "nothing");
    }
  }
  for (sm::PairTraffic const& pair : pairs) {
    auto const light = 88 - 48 * pair.bytes / most;
    double const px = left + static_cast<double>(pair.to) * cell;
    double const py = top + static_cast<double>(pair.from) * cell;
    svg.rect(px, py, cell, cell, sm::detail::concat("hsl(215,70%,", std::to_string(light), "%)"),
             sm::detail::concat("rank ", std::to_string(pair.from), " to rank ",
                                std::to_string(pair.to), ": ", in_words(pair.bytes)));
  }
  svg.text(left, top + static_cast<double>(ranks) * cell + 20,
           pairs.empty() ? "nothing moves" : sm::detail::concat("the darkest: ", in_words(most)),
           "start", 11);
  return svg.done();
}

}  // namespace tool
