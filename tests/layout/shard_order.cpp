// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/layout/shard_order.hpp>

#include <algorithm>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/layout/layout.hpp>

namespace shard_order_test {

namespace sm = shardmesh;

using sm::Cut;
using sm::Layout;
using sm::Placement;
using sm::PlacementList;
using sm::Shape;
using sm::ShardOrder;

namespace {

/// Every order of cuts of tensors with `tensor_rank` dimensions by some of the mesh dimensions.
std::vector<ShardOrder> all_orders(int tensor_rank, int mesh_rank) {
  std::vector<ShardOrder> orders{ShardOrder{}};
  for (std::size_t done = 0; done < orders.size(); ++done) {
    ShardOrder const order = orders[done];
    for (int m = 0; m < mesh_rank; ++m) {
      bool const used =
          std::any_of(order.begin(), order.end(), [m](Cut const& c) { return c.mesh_dim == m; });
      // Sorted by tensor dimension: that of the last cut, or one further right.
      for (int d = order.empty() ? 0 : order.back().tensor_dim; d < tensor_rank && !used; ++d) {
        orders.push_back(order);
        orders.back().push_back({d, m, 1});
      }
    }
  }
  return orders;
}

PlacementList replicated(Shape const& mesh) {
  return PlacementList(mesh.size(), Placement{});
}

/// The elements of a 1-d tensor that a rank keeps when each cut takes a chunk of what is left.
sm::Interval cut_in_order(sm::index_t length,
                          ShardOrder const& order,
                          Shape const& mesh,
                          sm::Coordinate const& at) {
  sm::Interval part{0, length};
  for (Cut const& one : order) {
    auto const m = static_cast<std::size_t>(one.mesh_dim);
    sm::Interval const next = sm::chunk(part.size(), mesh[m], at[m]);
    part = {part.lo + next.lo, part.lo + next.hi};
  }
  return part;
}

}  // namespace

TEST_SUITE_BEGIN("layout.shard_order");

TEST_CASE("shard_order: every order becomes placements and comes back") {
  std::size_t cases = 0;
  for (Shape const& mesh : std::vector<Shape>{{2}, {2, 3}, {3, 2, 2}, {2, 3, 5}, {2, 2, 2, 2}}) {
    for (int tensor_rank = 1; tensor_rank <= 3; ++tensor_rank) {
      for (ShardOrder const& order : all_orders(tensor_rank, static_cast<int>(mesh.size()))) {
        PlacementList const list = sm::to_placements(order, mesh, replicated(mesh));
        REQUIRE(sm::physical_order(list, mesh) == order);
        ++cases;
      }
    }
  }
  MESSAGE(cases << " orders");
  CHECK(cases > 1300);
}

TEST_CASE("shard_order: placements that have an order come back; the others are refused") {
  Shape const mesh{2, 3, 2};
  Placement const choices[] = {sm::Replicate{},
                               sm::Partial<>{},
                               sm::Shard{0},
                               sm::Shard{1},
                               Placement::strided(0, 2),
                               Placement::strided(0, 3),
                               Placement::strided(0, 6),
                               Placement::strided(1, 2),
                               Placement::strided(0, 12),
                               Placement::strided(1, 3)};
  int legal = 0;
  int refused = 0;
  for (sm::index_t code = 0; code < 1000; ++code) {
    Shape const pick = sm::unravel(code, {10, 10, 10});
    PlacementList list;
    for (sm::index_t i : pick) {
      list.push_back(choices[i]);
    }
    try {
      ShardOrder const order = sm::physical_order(list, mesh);
      PlacementList other = list;
      std::replace_if(
          other.begin(), other.end(), [](Placement const& p) { return p.is_shard(); }, Placement{});
      REQUIRE(sm::to_placements(order, mesh, other) == list);
      ++legal;
    } catch (sm::InvalidArgument const&) {
      ++refused;
    }
  }
  // A strided shard needs shards of its dimension further right: the last never is one.
  CHECK(legal + refused == 1000);
  CHECK(refused >= 600);
  CHECK(legal >= 64);
}

TEST_CASE("shard_order: what each order looks like in PyTorch") {
  Shape const mesh{2, 3, 5};
  auto const text = [&](ShardOrder const& order) {
    return sm::to_string(sm::to_placements(order, mesh, replicated(mesh)));
  };
  CHECK(text({{0, 0, 1}, {0, 1, 1}, {0, 2, 1}}) == "(Shard(0), Shard(0), Shard(0))");
  CHECK(text({{0, 1, 1}, {0, 0, 1}}) == "(StridedShard(0, split_factor=3), Shard(0), Replicate)");
  CHECK(text({{0, 2, 1}, {0, 1, 1}, {0, 0, 1}}) ==
        "(StridedShard(0, split_factor=15), StridedShard(0, split_factor=5), Shard(0))");
  CHECK(text({{0, 2, 1}, {0, 0, 1}, {0, 1, 1}}) ==
        "(StridedShard(0, split_factor=5), StridedShard(0, split_factor=5), Shard(0))");
  CHECK(text({{0, 1, 1}, {1, 2, 1}, {1, 0, 1}}) ==
        "(StridedShard(1, split_factor=5), Shard(0), Shard(1))");
}

TEST_CASE("shard_order: left to right keeps split factors and sorts by tensor dimension") {
  PlacementList const list{sm::Shard{1}, Placement::strided(0, 4), sm::Partial<>{}, sm::Shard{0}};
  ShardOrder const order = sm::left_to_right(list);
  CHECK(order == ShardOrder{{0, 1, 4}, {0, 3, 1}, {1, 0, 1}});
}

TEST_CASE("shard_order: where sizes divide, both readings of the placements are one layout") {
  for (Shape const& mesh : std::vector<Shape>{{2, 3}, {2, 2, 2}}) {
    for (ShardOrder const& order : all_orders(1, static_cast<int>(mesh.size()))) {
      Layout const physical = Layout::with_order({24}, mesh, order);
      Layout const plain({24}, mesh, physical.placements());
      for (sm::index_t rank = 0; rank < physical.ranks(); ++rank) {
        auto const at = sm::unravel(rank, mesh);
        REQUIRE(physical.local_shape(at) == plain.local_shape(at));
        REQUIRE(physical.local_offset(at) == plain.local_offset(at));
      }
    }
  }
}

TEST_CASE("shard_order: a layout with an order cuts in that order, even or not") {
  for (Shape const& mesh : std::vector<Shape>{{3, 2}, {2, 3, 2}}) {
    for (ShardOrder const& order : all_orders(1, static_cast<int>(mesh.size()))) {
      for (sm::index_t length = 0; length <= 14; ++length) {
        Layout const layout = Layout::with_order({length}, mesh, order);
        REQUIRE(layout.order() == order);
        for (sm::index_t rank = 0; rank < layout.ranks(); ++rank) {
          auto const at = sm::unravel(rank, mesh);
          sm::Interval const part = cut_in_order(length, order, mesh, at);
          REQUIRE(layout.local_box(at) == sm::Box{{part.lo}, {part.size()}});
        }
      }
    }
  }
}

TEST_CASE("shard_order: mesh dimensions that an order leaves out are partial or replicated") {
  PlacementList const other{sm::Shard{0}, sm::Partial<>{}, sm::Shard{0}};
  Layout const layout = Layout::with_order({8}, {2, 2, 2}, {{0, 2, 1}}, other);
  PlacementList const wanted{sm::Replicate{}, sm::Partial<>{}, sm::Shard{0}};
  CHECK(layout.placements() == wanted);
  CHECK(layout.local_shape({0, 0, 0}) == Shape{4});
}

TEST_CASE("shard_order: placements without an order are refused with a sentence") {
  PlacementList const list{sm::Shard{0}, Placement::strided(0, 2)};
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::physical_order(list, {2, 2})),
                       "shardmesh::physical_order: no order of cuts gives (Shard(0), "
                       "StridedShard(0, split_factor=2)) on mesh (2, 2); the split factor must be "
                       "the product of the sizes of shards of the same dimension further right",
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(static_cast<void>(Layout::with_order({8}, {2}, {{1, 0, 1}})),
                       doctest::Contains("cut 0 (tensor dimension 1 by mesh dimension 0) is out of "
                                         "range"),
                       sm::InvalidArgument);
}

TEST_SUITE_END();

}  // namespace shard_order_test
