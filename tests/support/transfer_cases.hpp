// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Transfers between random meshes of one world: one body for every engine and memory space.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <variant>
#include <vector>

#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/transfer.hpp>

#include "redistribute_cases.hpp"

namespace test {

template <class Comm>
using SomeMesh = std::variant<shardmesh::DeviceMesh<1, Comm>,
                              shardmesh::DeviceMesh<2, Comm>,
                              shardmesh::DeviceMesh<3, Comm>>;

/// Meshes of random shapes over random ranks of a world, the whole line of ranks among them.
/// @collective over `world`.
template <class Comm>
std::vector<SomeMesh<Comm>> random_meshes(Comm const& world,
                                          std::size_t count,
                                          std::mt19937& random) {
  index_t const n = world.size();
  std::vector<SomeMesh<Comm>> meshes{shardmesh::device_mesh(world, {n})};
  while (meshes.size() < count) {
    index_t extents[3] = {1, 1, 1};
    index_t ranks = 1;
    for (index_t& extent : extents) {
      extent = 1 + static_cast<index_t>(random() % static_cast<unsigned>(n / ranks));
      ranks *= extent;
    }
    std::vector<int> chosen(static_cast<std::size_t>(n));
    std::iota(chosen.begin(), chosen.end(), 0);
    std::shuffle(chosen.begin(), chosen.end(), random);
    chosen.resize(static_cast<std::size_t>(ranks));
    switch (random() % 3) {
      case 0:
        meshes.push_back(shardmesh::device_mesh<1>(world, {ranks}, chosen, {}));
        break;
      case 1:
        meshes.push_back(
            shardmesh::device_mesh<2>(world, {extents[0], extents[1] * extents[2]}, chosen, {}));
        break;
      default:
        meshes.push_back(shardmesh::device_mesh<3>(world, extents, chosen, {}));
    }
  }
  return meshes;
}

inline PlacementList random_placements(Shape const& shape,
                                       std::size_t mesh_rank,
                                       bool may_be_partial,
                                       std::mt19937& random) {
  PlacementList list;
  for (std::size_t m = 0; m < mesh_rank; ++m) {
    int const dim = shape.empty() ? 0 : static_cast<int>(random() % shape.size());
    switch (random() % (shape.empty() ? 2 : 6)) {
      case 0:
        list.push_back(shardmesh::Replicate{});
        break;
      case 1:
        list.push_back(may_be_partial ? Placement(shardmesh::Partial<>{})
                                      : Placement(shardmesh::Replicate{}));
        break;
      case 2:
        list.push_back(Placement::strided(dim, 2));
        break;
      default:
        list.push_back(shardmesh::Shard{dim});
    }
  }
  return list;
}

/// One transfer of a tensor whose every element is known.
template <class T, class Space, class Mesh, class Other>
void run_transfer(Mesh const& mesh,
                  Other const& other,
                  Layout const& from,
                  PlacementList const& list,
                  CaseReport& report) {
  shardmesh::Tensor<T, shardmesh::HostMemory> local(Shape{0});
  if (mesh.is_member()) {
    auto const start = expected_local<T>(from, from, mesh.coordinate());
    local = shardmesh::Tensor<T, shardmesh::HostMemory>(from.local_shape(mesh.coordinate()));
    std::copy(start.begin(), start.end(), local.data());
  }
  shardmesh::DistTensor<T, Mesh, PlacementList, Space> const before(mesh, from,
                                                                    local.template clone<Space>());
  auto const after = shardmesh::transfer(before, other, list);
  bool right = after.mesh() == other;
  auto const got = shardmesh::to_host(after.to_local());
  if (other.is_member()) {
    // By elements, with all terms of a partial source added up.
    Layout const reduced = Layout::with_order(from.shape(), from.mesh(), from.order());
    Layout const to(from.shape(), other.shape(), list);
    std::vector<T> wanted;
    for (index_t element :
         elements_by_naive_cuts(to.shape(), to.mesh(), to.placements(), other.coordinate())) {
      wanted.push_back(number<T>(expected_value(reduced, from, Coordinate{}, element)));
    }
    right = right && got.shape() == to.local_shape(other.coordinate()) &&
            std::equal(wanted.begin(), wanted.end(), got.data());
  } else {
    right = right && got.size() == 0;
  }
  ++report.cases;
  report.wrong += right ? 0 : 1;
  if (!right && report.first_wrong.empty()) {
    report.first_wrong = to_string(mesh.holding(from)) + " -> " + to_string(list) + " on " +
                         to_string(other.description());
  }
}

/// Random pairs of meshes, shapes, placements and element types.
/// @collective over `world`.
template <class Space, class Comm>
CaseReport run_transfers(Comm const& world, unsigned seed, std::size_t mesh_count, int count) {
  std::mt19937 random(seed);  // the same on every rank
  auto const meshes = random_meshes(world, mesh_count, random);
  CaseReport report;
  for (int i = 0; i < count; ++i) {
    auto const& one = meshes[random() % meshes.size()];
    auto const& other = meshes[random() % meshes.size()];
    Shape shape;
    for (unsigned long d = random() % 4; d > 0; --d) {
      shape.push_back(static_cast<index_t>(random() % 8));
    }
    auto const type = random() % 3;
    std::visit(
        [&](auto const& mesh, auto const& target) {
          Layout const from(shape, mesh.shape(),
                            random_placements(shape, mesh.shape().size(), true, random));
          auto const list = random_placements(shape, target.shape().size(), false, random);
          if (type == 0) {
            run_transfer<float, Space>(mesh, target, from, list, report);
          } else if (type == 1) {
            run_transfer<std::int64_t, Space>(mesh, target, from, list, report);
          } else {
            run_transfer<shardmesh::BFloat16, Space>(mesh, target, from, list, report);
          }
        },
        one, other);
  }
  return report;
}

}  // namespace test
