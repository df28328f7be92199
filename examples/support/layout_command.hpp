// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// `shardmesh layout`: who holds what of a sharded tensor, as a picture or as JSON.

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <shardmesh/layout/layout.hpp>
#include <shardmesh/layout/picture.hpp>

namespace tool {

namespace sm = shardmesh;

/// "7,5" as a shape; "" or "()" is 0-d.
/// @throws InvalidArgument for anything but integers and commas.
inline sm::Shape parse_shape(std::string const& text, char const* option) {
  sm::Shape shape;
  if (text.empty() || text == "()") {
    return shape;
  }
  std::size_t at = 0;
  while (at <= text.size()) {
    std::size_t const comma = std::min(text.find(',', at), text.size());
    std::string const part = text.substr(at, comma - at);
    bool const digits = !part.empty() && part.size() < 19 &&
                        part.find_first_not_of("0123456789") == std::string::npos;
    if (!digits) {
      throw sm::InvalidArgument(std::string("shardmesh layout: ") + option + " \"" + text +
                                "\" is no list of numbers; write for example 7,5");
    }
    shape.push_back(std::stoll(part));
    at = comma + 1;
  }
  return shape;
}

/// One placement: R, S<dim>, SS<dim>:<split factor>.
/// @throws InvalidArgument
inline sm::Placement parse_placement(std::string const& text) {
  auto const number = [&text](std::string const& part) {
    if (part.empty() || part.size() > 9 ||
        part.find_first_not_of("0123456789") != std::string::npos) {
      throw sm::InvalidArgument("shardmesh layout: \"" + text +
                                "\" is no placement; write R, S<dim> or SS<dim>:<split factor>");
    }
    return std::stoi(part);
  };
  if (text == "R") {
    return sm::Replicate{};
  }
  if (text.rfind("SS", 0) == 0) {
    auto const colon = std::min(text.find(':'), text.size() - 1);
    return sm::Placement::strided(number(text.substr(2, colon - 2)),
                                  number(text.substr(colon + 1)));
  }
  if (text.rfind('S', 0) == 0) {
    return sm::Shard{number(text.substr(1))};
  }
  return sm::Shard{number("")};
}

inline sm::PlacementList parse_placements(std::string const& text) {
  sm::PlacementList list;
  std::size_t at = 0;
  while (at <= text.size() && !text.empty()) {
    std::size_t const comma = std::min(text.find(',', at), text.size());
    list.push_back(parse_placement(text.substr(at, comma - at)));
    at = comma + 1;
  }
  return list;
}

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
  sm::Layout const layout(parse_shape(options.shape, "--shape"),
                          parse_shape(options.mesh, "--mesh"),
                          parse_placements(options.placements));
  if (options.format == "json") {
    std::cout << to_json(layout).dump() << '\n';
  } else {
    std::cout << sm::picture(layout, {.color = options.color});
  }
  return 0;
}

}  // namespace tool
