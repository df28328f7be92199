// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Simple, independent references for layouts: index lists instead of arithmetic on boxes.

#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

#include <shardmesh/layout/layout.hpp>

namespace test {

using shardmesh::Coordinate;
using shardmesh::index_t;
using shardmesh::Layout;
using shardmesh::Placement;
using shardmesh::PlacementList;
using shardmesh::Shape;

template <class Json>
Shape shape_of(Json const& json) {
  Shape shape;
  for (auto const& extent : json) {
    shape.push_back(extent.template get<index_t>());
  }
  return shape;
}

/// "R", "S<dim>", "SS<dim>:<split factor>".
template <class Json>
PlacementList placements_of(Json const& json) {
  PlacementList list;
  for (auto const& one : json) {
    auto const text = one.template get<std::string>();
    if (text == "R") {
      list.push_back(shardmesh::Replicate{});
    } else if (text[1] == 'S') {
      auto const colon = text.find(':');
      list.push_back(
          Placement::strided(std::stoi(text.substr(2)), std::stol(text.substr(colon + 1))));
    } else {
      list.push_back(shardmesh::Shard{std::stoi(text.substr(1))});
    }
  }
  return list;
}

/// torch.chunk on a list of indices.
inline std::vector<index_t> chunk_of(std::vector<index_t> const& list, index_t count, index_t at) {
  auto const length = static_cast<index_t>(list.size());
  index_t const size = length == 0 ? 0 : (length - 1) / count + 1;
  std::vector<index_t> part;
  for (index_t i = at * size; i < (at + 1) * size && i < length; ++i) {
    part.push_back(list[static_cast<std::size_t>(i)]);
  }
  return part;
}

/// Global linear numbers of the elements of a rank's local tensor, in row-major local order, by
/// cutting index lists from left to right.
inline std::vector<index_t> elements_by_naive_cuts(Shape const& shape,
                                                   Shape const& mesh,
                                                   PlacementList const& list,
                                                   Coordinate const& coordinate) {
  std::vector<std::vector<index_t>> indices;
  for (index_t extent : shape) {
    indices.emplace_back(static_cast<std::size_t>(extent));
    std::iota(indices.back().begin(), indices.back().end(), index_t{0});
  }
  for (std::size_t m = 0; m < list.size(); ++m) {
    if (list[m].is_shard()) {
      auto& one = indices[static_cast<std::size_t>(list[m].dim)];
      std::vector<index_t> kept;
      for (index_t piece = 0; piece < list[m].split_factor; ++piece) {
        auto const part =
            chunk_of(chunk_of(one, list[m].split_factor, piece), mesh[m], coordinate[m]);
        kept.insert(kept.end(), part.begin(), part.end());
      }
      one = kept;
    }
  }
  std::vector<index_t> elements{0};
  for (std::size_t d = 0; d < shape.size(); ++d) {
    std::vector<index_t> next;
    for (index_t outer : elements) {
      for (index_t inner : indices[d]) {
        next.push_back(outer * shape[d] + inner);
      }
    }
    elements = next;
  }
  return elements;
}

/// The same by the library's pieces: -1 marks an element that no piece fills.
inline std::vector<index_t> elements_by_pieces(Layout const& layout, Coordinate const& coordinate) {
  Shape const local = layout.local_shape(coordinate);
  std::vector<index_t> elements(static_cast<std::size_t>(shardmesh::volume(local)), -1);
  for (auto const& piece : layout.pieces(coordinate)) {
    for (index_t i = 0; i < piece.box.volume(); ++i) {
      Shape const at = shardmesh::unravel(i, piece.box.extent);
      index_t const here = shardmesh::ravel(shardmesh::sum(piece.local, at), local);
      elements[static_cast<std::size_t>(here)] =
          shardmesh::ravel(shardmesh::sum(piece.box.offset, at), layout.shape());
    }
  }
  return elements;
}

inline std::vector<Shape> small_meshes() {
  return {{1},    {2},    {3},    {4},    {5},    {8},    {1, 2},
          {2, 1}, {2, 2}, {2, 3}, {3, 2}, {2, 4}, {4, 2}, {2, 2, 2}};
}

inline std::vector<Shape> small_shapes() {
  return {{},     {0},    {1},    {2},    {5},       {7},       {9},
          {0, 3}, {1, 4}, {3, 5}, {7, 5}, {2, 3, 4}, {5, 1, 6}, {3, 2, 2, 5}};
}

/// All tuples of R, S<d> and strided S<d> (factors 2 and 3) for a tensor and mesh rank.
inline std::vector<PlacementList> shard_placements(std::size_t tensor_rank, std::size_t mesh_rank) {
  std::vector<Placement> choices{shardmesh::Replicate{}};
  for (std::size_t d = 0; d < tensor_rank; ++d) {
    choices.push_back(shardmesh::Shard{static_cast<int>(d)});
    choices.push_back(Placement::strided(static_cast<int>(d), 2));
    if (mesh_rank < 3) {
      choices.push_back(Placement::strided(static_cast<int>(d), 3));
    }
  }
  std::vector<PlacementList> lists{PlacementList{}};
  for (std::size_t m = 0; m < mesh_rank; ++m) {
    std::vector<PlacementList> next;
    for (PlacementList const& list : lists) {
      for (Placement const& choice : choices) {
        next.push_back(list);
        next.back().push_back(choice);
      }
    }
    lists = next;
  }
  return lists;
}

}  // namespace test
