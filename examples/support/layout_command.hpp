// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// `shardmesh layout`: who holds what of a sharded tensor, as a picture or as JSON.

#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <shardmesh/layout/layout.hpp>
#include <shardmesh/layout/picture.hpp>

#include "notation.hpp"

namespace tool {

namespace sm = shardmesh;

/// {"ranks":[[[local shape],[offset]],...]} in row-major mesh order.
inline nlohmann::ordered_json to_json(sm::Layout const& layout) {
  auto const list = [](sm::Shape const& shape) {
    return std::vector<sm::index_t>(shape.begin(), shape.end());
  };
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array();
  for (sm::index_t rank = 0; rank < layout.ranks(); ++rank) {
    auto const coordinate = sm::unravel(rank, layout.mesh());
    ranks.push_back({list(layout.local_shape(coordinate)), list(layout.local_offset(coordinate))});
  }
  return {{"ranks", ranks}};
}

inline sm::Layout layout_of(nlohmann::json const& line) {
  auto const shape = [&line](char const* key) {
    auto const values = line.at(key).get<std::vector<sm::index_t>>();
    return sm::Shape(values.begin(), values.end());
  };
  sm::PlacementList list;
  for (auto const& one : line.at("placements").get<std::vector<std::string>>()) {
    list.push_back(parse_placement(one));
  }
  return {shape("shape"), shape("mesh"), list};
}

/// Reads a layout a line and answers each with a line; blank lines are passed over.
/// @returns 1 if a line was no layout: its answer is then {"error": ...}.
inline int run_batch(std::istream& in, std::ostream& out) {
  int status = 0;
  std::string line;
  while (std::getline(in, line)) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) {
      continue;
    }
    try {
      out << to_json(layout_of(nlohmann::json::parse(line))).dump() << '\n';
    } catch (std::exception const& error) {
      out << nlohmann::json{{"error", error.what()}}.dump() << '\n';
      status = 1;
    }
  }
  return status;
}

struct LayoutOptions {
  std::string shape;
  std::string mesh;
  std::string placements;
  std::string format = "text";
  bool batch = false;
  bool color = false;
};

inline int run_layout(LayoutOptions const& options) {
  if (options.batch) {
    return run_batch(std::cin, std::cout);
  }
  sm::Layout const layout(parse_shape(options.shape, "--shape"), parse_mesh(options.mesh, "--mesh"),
                          parse_placements(options.placements));
  if (options.format == "json") {
    std::cout << to_json(layout).dump() << '\n';
  } else {
    std::cout << sm::picture(layout, {.color = options.color});
  }
  return 0;
}

}  // namespace tool
