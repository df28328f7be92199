// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// A plan as a picture: the tensor before and after each exchange, every block in the colour of the rank that holds
// it, and a table of the bytes that each rank sends each other.

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/plan/cost.hpp>

#include "layout_picture.hpp"
#include "svg.hpp"

namespace tool {

namespace sm = shardmesh;

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
  auto const dims = drawn_dims(plan.stages);
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
