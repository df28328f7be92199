// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Reshard on load: what a job saves on one of its meshes, it loads on every other. A body for every
// engine, as those of behaviours.hpp.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "report.hpp"

namespace test {

/// Calls `f(mesh)` with every mesh of up to two dimensions over all ranks, one of three, and one over
/// the first half of the ranks.
template <class Comm, class F>
void for_each_mesh(Comm const& world, F const& f) {
  sm::index_t const n = world.size();
  f(sm::device_mesh(world, {n}));
  for (sm::index_t rows = 1; rows <= n; ++rows) {
    if (n % rows == 0 && n > 1) {
      f(sm::device_mesh(world, {rows, n / rows}));
    }
  }
  if (n % 4 == 0) {
    f(sm::device_mesh(world, {2, 2, n / 4}));
  }
  if (n > 1) {
    std::vector<int> half;
    for (int rank = 0; rank < world.size() / 2; ++rank) {
      half.push_back(rank);
    }
    f(sm::device_mesh(world, {n / 2}, half, {}));
  }
}

/// The placements of variant `number` for a tensor on a mesh of N dimensions.
template <std::size_t N>
sm::PlacementList variant(std::size_t number, sm::Shape const& shape) {
  sm::Placement const r = sm::Replicate{};
  sm::Placement const s0 = sm::Shard{0};
  sm::Placement const s1 = sm::Shard{1};
  std::vector<std::array<sm::Placement, 3>> const lists =
      N == 1   ? std::vector<std::array<sm::Placement, 3>>{{s0, r, r}, {s1, r, r}, {r, r, r}}
      : N == 2 ? std::vector<std::array<sm::Placement, 3>>{{r, s0, r},
                                                           {s0, s1, r},
                                                           {s1, s0, r},
                                                           {s0, s0, r}}
               : std::vector<std::array<sm::Placement, 3>>{{r, s0, s1}, {s0, s1, s0}, {s1, r, s0}};
  sm::PlacementList chosen;
  for (std::size_t m = 0; m < N; ++m) {
    sm::Placement const& placement = lists[number % lists.size()][m];
    bool const fits =
        !placement.is_shard() || static_cast<std::size_t>(placement.dim) < shape.size();
    chosen.push_back(fits ? placement : r);
  }
  return chosen;
}

/// Tensors of four kinds on a mesh, with the elements of `seed`.
template <class Space, std::size_t N, class Comm>
sm::StateDict state_on(sm::DeviceMesh<N, Comm> const& mesh, std::size_t number, int seed) {
  sm::StateDict dict;
  auto const add = [&]<class T>(std::string const& name, sm::Shape const& shape, T) {
    auto whole = sm::Tensor<T>::zeros(shape);
    for (std::size_t i = 0; i < whole.span().size(); ++i) {
      whole.span()[i] = T(static_cast<float>((static_cast<int>(i) * 7 + seed * 31) % 113));
    }
    dict.insert(name, sm::distribute(whole.template clone<Space>(), mesh,
                                     variant<N>(number++, shape), sm::DataSource::own));
  };
  add("matrix", {13, 6}, float{});
  add("cube", {8, 3, 5}, sm::BFloat16{});
  add("vector", {7}, double{});
  add("scalar", {}, float{});
  typename Space::Stream{}.synchronize();
  return dict;
}

/// What is saved on any mesh of the job is, bit for bit, what any other loads.
template <class Space, class Comm>
std::string reshard_on_load(Comm const& world) {
  Report report;
  SharedDirectory const directory(world);
  int saved = 0;
  for_each_mesh(world, [&](auto const& from) {
    std::string const path = directory.file("reshard-" + std::to_string(saved));
    auto const number = static_cast<std::size_t>(saved);
    sm::save(world, path, state_on<Space>(from, number, ++saved));
    std::size_t loaded = 0;
    for_each_mesh(world, [&](auto const& to) {
      std::size_t const other = number + loaded++;
      sm::StateDict dict = state_on<Space>(to, other, 0);
      sm::load(world, path, dict);
      report.expect_equal(sm::difference(dict, state_on<Space>(to, other, saved)),
                          "saved on " + to_string(from.description()) + ", loaded on " +
                              to_string(to.description()));
    });
    report.expect(loaded >= (world.size() > 1 ? 4U : 1U), "too few meshes");
  });
  return report.problem();
}

}  // namespace test
