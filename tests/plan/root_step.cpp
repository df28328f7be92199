// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/plan/root_step.hpp>

#include <cstddef>
#include <vector>

#include <doctest/doctest.h>

#include "../support/layouts.hpp"

namespace sm = shardmesh;

using sm::index_t;
using sm::Layout;
using sm::Shape;
using sm::Transfer;

namespace {

/// Copies a box between tensors of integers.
void move(Transfer const& one, std::vector<index_t> const& from, std::vector<index_t>& to) {
  for (index_t i = 0; i < one.box.volume(); ++i) {
    Shape const at = sm::unravel(i, one.box.extent);
    auto const source = sm::ravel(sm::sum(one.source.offset, at), one.source.shape);
    auto const target = sm::ravel(sm::sum(one.target.offset, at), one.target.shape);
    to[static_cast<std::size_t>(target)] = from[static_cast<std::size_t>(source)];
  }
}

std::vector<index_t> counting(Shape const& shape) {
  return test::elements_by_naive_cuts(shape, {1}, {sm::Replicate{}}, {0});
}

/// Calls f(layout) for small shapes, meshes and placements.
template <class F>
void for_each_layout(F f) {
  for (Shape const& mesh : {Shape{1}, Shape{3}, Shape{2, 2}, Shape{2, 3}, Shape{2, 2, 2}}) {
    for (Shape const& shape :
         {Shape{}, Shape{0}, Shape{1}, Shape{5}, Shape{7, 5}, Shape{2, 3, 4}}) {
      for (auto const& list : test::shard_placements(shape.size(), mesh.size())) {
        f(Layout(shape, mesh, list));
      }
    }
  }
}

std::vector<index_t> local_of(Layout const& layout, index_t rank) {
  return test::elements_by_naive_cuts(layout.shape(), layout.mesh(), layout.placements(),
                                      sm::unravel(rank, layout.mesh()));
}

}  // namespace

TEST_SUITE_BEGIN("plan.root_step");

TEST_CASE("gather_step: the root gets every element once, from ranks that send just that") {
  for_each_layout([](Layout const& layout) {
    auto const ranks = static_cast<int>(layout.ranks());
    for (int const root : {0, ranks - 1}) {
      auto const at_root = sm::gather_step(layout, root, root);
      std::vector<index_t> whole(static_cast<std::size_t>(sm::volume(layout.shape())), -1);
      index_t moved = 0;
      for (Transfer const& one : at_root.locals) {
        moved += one.box.volume();
        move(one, local_of(layout, root), whole);
      }
      std::size_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        if (rank == root) {
          continue;
        }
        for (Transfer const& sent : sm::gather_step(layout, root, rank).sends) {
          REQUIRE(next < at_root.receives.size());
          Transfer expected = at_root.receives[next++];
          CHECK(expected.peer == rank);
          expected.peer = root;
          CHECK(sent == expected);
          moved += sent.box.volume();
          move(sent, local_of(layout, rank), whole);
        }
      }
      CHECK(next == at_root.receives.size());
      CHECK(moved == sm::volume(layout.shape()));
      CHECK(whole == counting(layout.shape()));
    }
  });
}

TEST_CASE("scatter_step: every rank gets its own part from the root") {
  for_each_layout([](Layout const& layout) {
    auto const ranks = static_cast<int>(layout.ranks());
    auto const whole = counting(layout.shape());
    for (int const root : {0, ranks - 1}) {
      auto const at_root = sm::scatter_step(layout, root, root);
      std::size_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        auto const step = sm::scatter_step(layout, root, rank);
        std::vector<index_t> local(static_cast<std::size_t>(sm::volume(step.target_shape)), -1);
        for (Transfer const& one : rank == root ? step.locals : step.receives) {
          if (rank != root) {
            REQUIRE(next < at_root.sends.size());
            Transfer expected = at_root.sends[next++];
            CHECK(expected.peer == rank);
            expected.peer = root;
            CHECK(one == expected);
          }
          move(one, whole, local);
        }
        CHECK(local == local_of(layout, rank));
      }
      CHECK(next == at_root.sends.size());
    }
  });
}

TEST_CASE("a partial tensor has no whole") {
  Layout const layout(Shape{4}, Shape{2}, {sm::Partial<>{}});
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::gather_step(layout, 0, 1)),
                       doctest::Contains("reduce it first"), sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::scatter_step(layout, 0, 1)),
                       doctest::Contains("reduce it first"), sm::InvalidArgument);
}

TEST_SUITE_END();
