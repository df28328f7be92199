// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// A map of a checkpoint (SVG): every tensor as a square of its boxes, each in the colour of the file that it lies in.

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/stored.hpp>

#include "svg.hpp"

namespace tool {

namespace sm = shardmesh;

/// The file of a box; "" if it has no elements.
template <class C>
std::string file_of_box(C const& catalog, std::string const& key, std::size_t i) {
  if constexpr (requires { catalog.metadata(); }) {
    auto const& storage = catalog.metadata().find(key)->tensor()->chunks[i].storage;
    return storage ? storage->relative_path : std::string();
  } else {
    auto const files = catalog.files(key);
    std::string const path = i < files.size() ? files[i] : std::string();
    return path.substr(path.rfind('/') + 1);
  }
}

/// The map. Of many tensors the first 120 are drawn and the others counted.
/// @param only  this tensor alone, or "" for all.
template <class C>
std::string checkpoint_map(C const& catalog, std::string const& path, std::string const& only) {
  constexpr std::size_t most = 120;
  constexpr std::size_t columns = 6;
  constexpr double side = 120;
  constexpr double cell_w = 170;
  constexpr double cell_h = side + 46;
  std::vector<std::string> keys;
  for (std::string const& key : catalog.keys()) {
    if (catalog.tensor(key) != nullptr && (only.empty() || key == only)) {
      keys.push_back(key);
    }
  }
  std::vector<std::string> files;
  auto const number_of = [&files](std::string const& file) {
    auto const at = std::find(files.begin(), files.end(), file);
    auto const number = at - files.begin();
    if (at == files.end()) {
      files.push_back(file);
    }
    return static_cast<int>(number);
  };
  Svg svg;
  svg.text(20, 28, in_xml(path), "start", 16);
  std::size_t const drawn = std::min(most, keys.size());
  for (std::size_t n = 0; n < drawn; ++n) {
    sm::StoredTensor const& stored = *catalog.tensor(keys[n]);
    double const x0 = 20 + static_cast<double>(n % columns) * cell_w;
    double const y0 = 50 + static_cast<double>(n / columns) * cell_h;
    std::string const name =
        keys[n].size() > 24 ? "..." + keys[n].substr(keys[n].size() - 21) : keys[n];
    svg.text(x0, y0 + side + 14, in_xml(name), "start", 11);
    svg.text(x0, y0 + side + 28, in_xml(sm::dtype_text(stored) + " " + to_string(stored.shape)),
             "start", 10);
    std::size_t const dims = stored.shape.size();
    // One dimension runs to the right, of more the first down and the second to the right.
    auto const along = [&](sm::Box const& box, std::size_t d, double& from, double& size) {
      auto const extent = static_cast<double>(d < dims ? stored.shape[d] : 1);
      from = d < dims ? static_cast<double>(box.offset[d]) / extent * side : 0;
      size = d < dims ? static_cast<double>(box.extent[d]) / extent * side : side;
    };
    for (std::size_t i = 0; i < stored.boxes.size(); ++i) {
      sm::Box const& box = stored.boxes[i];
      if (box.empty()) {
        continue;
      }
      std::string const file = file_of_box(catalog, keys[n], i);
      double x = 0;
      double y = 0;
      double w = side;
      double h = side;
      along(box, dims > 1 ? 1 : 0, x, w);
      along(box, dims > 1 ? 0 : dims, y, h);
      svg.rect(x0 + x, y0 + y, w, h, color_of(number_of(file)),
               in_xml(sm::detail::concat(keys[n], ' ', to_string(box), " in ", file)));
    }
  }
  double y = 50 + static_cast<double>((drawn + columns - 1) / columns) * cell_h + 10;
  if (drawn < keys.size()) {
    svg.text(20, y, "and " + std::to_string(keys.size() - drawn) + " more tensors", "start");
    y += 20;
  }
  for (std::size_t i = 0; i < files.size() && i < 64; ++i) {
    svg.rect(20, y, 12, 12, color_of(static_cast<int>(i)), in_xml(files[i]));
    svg.text(40, y + 11, in_xml(files[i]), "start", 11);
    y += 16;
  }
  return svg.done();
}

}  // namespace tool
