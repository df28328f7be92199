// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The redistribute property test: one body for every engine and memory space. Every case is compared
// with cutting the full tensor by the naive rules of layouts.hpp.

#include <algorithm>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/redistribute.hpp>

#include "layouts.hpp"

namespace test {

/// What a run of cases found on one rank.
struct CaseReport {
  long cases = 0;
  long wrong = 0;
  std::string first_wrong;
};

template <class T>
T number(index_t value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value % 2 != 0;
  } else if constexpr (std::is_constructible_v<T, float>) {
    return T(static_cast<float>(value));
  } else {
    return static_cast<T>(value);
  }
}

/// The contribution of `term` to element `element`: a small integer, so that sums are exact.
inline index_t contribution(index_t element, index_t term) {
  return (element * 7 + term * 3 + element / 5) % 5;
}

/// Value of an element at a rank: the sum of the terms of all contributors of `source` that agree
/// with the rank where `layout` is still partial.
inline index_t expected_value(Layout const& layout,
                              Layout const& source,
                              Coordinate const& coordinate,
                              index_t element) {
  Shape contributors;
  std::vector<std::size_t> dims;
  for (std::size_t m = 0; m < source.placements().size(); ++m) {
    if (source.placements()[m].is_partial()) {
      contributors.push_back(source.mesh()[m]);
      dims.push_back(m);
    }
  }
  index_t sum = 0;
  for (index_t term = 0; term < shardmesh::volume(contributors); ++term) {
    auto const at = shardmesh::unravel(term, contributors);
    bool mine = true;
    for (std::size_t i = 0; i < dims.size(); ++i) {
      mine = mine && (!layout.placements()[dims[i]].is_partial() || coordinate[dims[i]] == at[i]);
    }
    sum += mine ? contribution(element, term) : 0;
  }
  return sum;
}

/// The local part that a rank must hold.
template <class T>
std::vector<T> expected_local(Layout const& layout,
                              Layout const& source,
                              Coordinate const& coordinate) {
  std::vector<T> local;
  for (index_t element :
       elements_by_naive_cuts(layout.shape(), layout.mesh(), layout.placements(), coordinate)) {
    local.push_back(number<T>(expected_value(layout, source, coordinate, element)));
  }
  return local;
}

template <class T, class Space, class Mesh>
void run_case(Mesh const& mesh,
              Shape const& shape,
              PlacementList const& from,
              PlacementList const& to,
              CaseReport& report) {
  Layout const source(shape, mesh.shape(), from);
  Layout const target(shape, mesh.shape(), to);
  auto const start = expected_local<T>(source, source, mesh.coordinate());
  std::vector<T> const copy(start);
  auto local = shardmesh::Tensor<T, shardmesh::HostMemory>(source.local_shape(mesh.coordinate()));
  std::copy(copy.begin(), copy.end(), local.data());
  using Dist = shardmesh::DistTensor<T, Mesh, PlacementList, Space>;
  Dist const before(mesh, source, local.template clone<Space>());
  auto const after = shardmesh::redistribute(before, to);
  auto const got = shardmesh::to_host(after.to_local());
  auto const wanted = expected_local<T>(target, source, mesh.coordinate());
  bool const equal = got.shape() == target.local_shape(mesh.coordinate()) &&
                     std::equal(wanted.begin(), wanted.end(), got.data());
  ++report.cases;
  if (!equal) {
    ++report.wrong;
    if (report.first_wrong.empty()) {
      report.first_wrong = std::string(to_string(shardmesh::dtype_of<T>)) + " " +
                           to_string(source) + " -> " + to_string(target) + " at " +
                           to_string(mesh.coordinate());
    }
  }
}

/// All placement tuples of R, P and S<d>, and strided shards on meshes of one or two dimensions.
inline std::vector<PlacementList> all_placements(std::size_t tensor_rank,
                                                 std::size_t mesh_rank,
                                                 bool strided) {
  std::vector<Placement> choices{shardmesh::Replicate{}, shardmesh::Partial<>{}};
  for (std::size_t d = 0; d < tensor_rank; ++d) {
    choices.push_back(shardmesh::Shard{static_cast<int>(d)});
  }
  if (strided) {
    choices.push_back(Placement::strided(0, 2));
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

template <class Space, class Mesh>
void run_dtype(std::size_t which,
               Mesh const& mesh,
               Shape const& shape,
               PlacementList const& from,
               PlacementList const& to,
               CaseReport& report) {
  switch (which % 6) {
    case 0:
      return run_case<float, Space>(mesh, shape, from, to, report);
    case 1:
      return run_case<shardmesh::BFloat16, Space>(mesh, shape, from, to, report);
    case 2:
      return run_case<std::int64_t, Space>(mesh, shape, from, to, report);
    case 3:
      return run_case<std::uint8_t, Space>(mesh, shape, from, to, report);
    case 4:
      return run_case<std::complex<float>, Space>(mesh, shape, from, to, report);
    default:
      return run_case<shardmesh::Float16, Space>(mesh, shape, from, to, report);
  }
}

/// Every ordered pair of legal placement tuples on one mesh; shapes and dtypes are drawn at random.
/// @param stride takes every stride-th pair only, from one that the seed chooses.
template <class Space, std::size_t N, class Comm>
void run_mesh(Comm const& world,
              index_t const (&extents)[N],
              unsigned seed,
              long stride,
              CaseReport& report) {
  Shape const mesh_shape(extents, extents + N);
  std::vector<int> ranks;
  for (int rank = 0; rank < static_cast<int>(shardmesh::volume(mesh_shape)); ++rank) {
    ranks.push_back(rank);
  }
  auto const mesh = shardmesh::device_mesh<N>(world, extents, ranks, {});
  if (!mesh.is_member()) {
    return;
  }
  std::mt19937 random(seed);  // the same on every rank
  long number_of_pair = static_cast<long>(seed) % stride;
  for (std::size_t tensor_rank = 1; tensor_rank <= (N < 3 ? 3U : 2U); ++tensor_rank) {
    auto const lists = all_placements(tensor_rank, N, N < 3);
    for (PlacementList const& from : lists) {
      for (PlacementList const& to : lists) {
        if (!shardmesh::detail::conversion_is_legal(from, to) || number_of_pair++ % stride != 0) {
          continue;
        }
        Shape shape;
        for (std::size_t d = 0; d < tensor_rank; ++d) {
          shape.push_back(static_cast<index_t>(random() % (d == 0 ? 14 : 6)));
        }
        run_dtype<Space>(random(), mesh, shape, from, to, report);
      }
    }
  }
}

/// The whole matrix on all meshes that fit a world: up to three dimensions and 8 ranks.
template <class Space, class Comm>
CaseReport run_matrix(Comm const& world, unsigned seed, long stride) {
  CaseReport report;
  int const n = world.size();
  auto const each = [&]<std::size_t N>(index_t const(&extents)[N]) {
    index_t const size = shardmesh::volume(Shape(extents, extents + N));
    if (size <= n && 2 * size > n) {
      run_mesh<Space>(world, extents, seed++, stride, report);
    }
  };
  each({1});
  each({2});
  each({3});
  each({4});
  each({5});
  each({7});
  each({8});
  each({2, 1});
  each({2, 2});
  each({1, 4});
  each({2, 3});
  each({3, 2});
  each({2, 4});
  each({4, 2});
  each({2, 2, 2});
  return report;
}

}  // namespace test
