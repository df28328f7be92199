// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// `shardmesh layout`: who holds what of a sharded tensor, as a picture, as JSON or as SVG.

#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <shardmesh/layout/layout.hpp>
#include <shardmesh/layout/picture.hpp>

#include "layout_picture.hpp"
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

/// For people's programs: everything by its name.
inline nlohmann::ordered_json named_json(sm::Layout const& layout) {
  using Json = nlohmann::ordered_json;
  auto const list = [](sm::Shape const& shape) {
    return std::vector<sm::index_t>(shape.begin(), shape.end());
  };
  Json placements = Json::array();
  for (sm::Placement const& one : layout.placements()) {
    placements.push_back(to_string(one));
  }
  Json ranks = Json::array();
  for (sm::index_t rank = 0; rank < layout.ranks(); ++rank) {
    auto const coordinate = sm::unravel(rank, layout.mesh());
    Json boxes = Json::array();
    for (sm::Piece const& piece : layout.pieces(coordinate)) {
      boxes.push_back({{"offset", list(piece.box.offset)}, {"extent", list(piece.box.extent)}});
    }
    ranks.push_back({{"rank", rank},
                     {"coordinate", list(coordinate)},
                     {"shape", list(layout.local_shape(coordinate))},
                     {"offset", list(layout.local_offset(coordinate))},
                     {"boxes", boxes}});
  }
  return {{"shape", list(layout.shape())},
          {"mesh", list(layout.mesh())},
          {"placements", placements},
          {"ranks", ranks}};
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
/// @returns 2 if a line was no layout: its answer is then {"error": ...}.
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
      status = 2;
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
  sm::index_t width = 0;  ///< columns; 0: however wide
};

inline int run_layout(LayoutOptions const& options) {
  if (options.batch) {
    return run_batch(std::cin, std::cout);
  }
  sm::Layout const layout(parse_shape(options.shape, "--shape"), parse_mesh(options.mesh, "--mesh"),
                          parse_placements(options.placements));
  if (options.format == "json") {
    std::cout << named_json(layout).dump() << '\n';
  } else if (options.format == "svg") {
    std::cout << svg_of(layout);
  } else {
    std::cout << sm::picture(layout, {.color = options.color, .most_width = options.width});
  }
  return 0;
}

}  // namespace tool
