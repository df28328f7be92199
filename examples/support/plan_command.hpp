// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// `shardmesh plan`: how a tensor would get from one layout to another, and what it costs: in words, as JSON, or as
// a picture (SVG).

#include <cstddef>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <shardmesh/plan/cost.hpp>

#include "notation.hpp"
#include "plan_picture.hpp"

namespace tool {

struct PlanOptions {
  std::string shape;
  std::string mesh;
  std::string from;
  std::string to;
  std::string to_mesh;
  std::string ranks;
  std::string to_ranks;
  std::string dtype = "float32";
  std::string format = "text";
};

inline sm::Holding parse_holding(sm::Shape const& shape,
                                 std::string const& mesh,
                                 char const* mesh_option,
                                 std::string const& placements,
                                 std::string const& ranks,
                                 char const* ranks_option) {
  sm::Layout const layout(shape, parse_mesh(mesh, mesh_option), parse_placements(placements));
  std::vector<int> numbers;
  for (std::string const& part : parts_of(without_brackets(ranks), ",")) {
    sm::index_t number = 0;
    if (!read_number(part, number) || number < 0 || number >= most_ranks) {
      refuse(ranks_option, ranks, "is no list of ranks; write for example 4,5,6,7");
    }
    numbers.push_back(static_cast<int>(number));
  }
  return numbers.empty() ? sm::Holding(layout) : sm::Holding(layout, std::move(numbers));
}

inline nlohmann::ordered_json to_json(sm::Shape const& shape) {
  return std::vector<sm::index_t>(shape.begin(), shape.end());
}

inline nlohmann::ordered_json to_json(sm::Holding const& holding) {
  nlohmann::ordered_json placements = nlohmann::ordered_json::array();
  for (sm::Placement const& one : holding.layout().placements()) {
    placements.push_back(to_string(one));
  }
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array();
  for (sm::index_t position = 0; position < holding.layout().ranks(); ++position) {
    ranks.push_back(holding.rank_at(position));
  }
  return {{"mesh", to_json(holding.layout().mesh())}, {"placements", placements}, {"ranks", ranks}};
}

/// Stages, what each rank sends in each exchange, bytes by pair, cost.
inline nlohmann::ordered_json to_json(sm::Plan const& plan, sm::DType dtype) {
  using Json = nlohmann::ordered_json;
  Json stages = Json::array();
  for (sm::Holding const& stage : plan.stages) {
    stages.push_back(to_json(stage));
  }
  Json exchanges = Json::array();
  for (std::size_t step = 0; step < plan.steps(); ++step) {
    Json sends = Json::array();
    for (sm::index_t rank = 0; rank < plan.stages[step].rank_limit(); ++rank) {
      for (sm::Transfer const& one : plan.rank_step(step, static_cast<int>(rank)).sends) {
        sends.push_back({{"from", rank},
                         {"to", one.peer},
                         {"offset", to_json(one.box.offset)},
                         {"extent", to_json(one.box.extent)},
                         {"is_term", one.slot >= 0}});
      }
    }
    exchanges.push_back({{"sends", sends}});
  }
  Json pairs = Json::array();
  for (sm::PairTraffic const& pair : traffic_of(plan, size_of(dtype))) {
    pairs.push_back({{"from", pair.from}, {"to", pair.to}, {"bytes", pair.bytes}});
  }
  sm::PlanCost const cost = cost_of(plan, size_of(dtype));
  return {{"shape", to_json(plan.from().layout().shape())},
          {"dtype", to_string(dtype)},
          {"stages", stages},
          {"exchanges", exchanges},
          {"pairs", pairs},
          {"cost",
           {{"exchanges", cost.exchanges},
            {"messages", cost.messages},
            {"bytes_moved", cost.moved},
            {"bytes_kept", cost.local},
            {"most_sent", cost.most_sent},
            {"most_received", cost.most_received},
            {"least_received", cost.least_received},
            {"most_staging", cost.most_staging}}}};
}

inline int run_plan(PlanOptions const& options) {
  sm::Shape const shape = parse_shape(options.shape, "--shape");
  bool const moves = !options.to_mesh.empty();
  sm::Plan const plan = sm::make_plan(
      parse_holding(shape, options.mesh, "--mesh", options.from, options.ranks, "--ranks"),
      parse_holding(
          shape, moves ? options.to_mesh : options.mesh, moves ? "--to-mesh" : "--mesh", options.to,
          options.to_ranks.empty() && !moves ? options.ranks : options.to_ranks, "--to-ranks"));
  sm::DType const dtype = parse_dtype(options.dtype);
  if (options.format == "json") {
    std::cout << to_json(plan, dtype).dump() << '\n';
  } else if (options.format == "svg") {
    std::cout << svg_of(plan, dtype);
  } else {
    std::cout << explain(plan, dtype);
  }
  return 0;
}

}  // namespace tool
