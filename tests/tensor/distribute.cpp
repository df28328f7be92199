// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/dist_tensor.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <algorithm>
#include <numeric>

#include <doctest/doctest.h>

namespace distribute_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;

namespace {

sm::Tensor<float> counting(sm::Shape const& shape) {
  sm::Tensor<float> tensor(shape);
  std::iota(tensor.span().begin(), tensor.span().end(), 0.0F);
  return tensor;
}

template <class T>
bool same(sm::Tensor<T> const& a, sm::Tensor<T> const& b) {
  return a.shape() == b.shape() && std::equal(a.span().begin(), a.span().end(), b.span().begin());
}

}  // namespace

TEST_SUITE_BEGIN("tensor.distribute");

TEST_CASE("distribute: the first rank's data reach every rank; the others may pass nothing") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"a", "b"});
    auto const mine = world.rank() == 0 ? counting({7, 5}) : sm::Tensor<float>();
    auto const t = sm::distribute(mine, {7, 5}, mesh, sm::placements<sm::Replicate, sm::Shard<1>>);
    CHECK(t.to_local().shape() == sm::Shape{7, mesh.coordinate()[1] == 0 ? 3 : 2});
    CHECK(same(sm::full_tensor(t), counting({7, 5})));
    CHECK(t.local_offset() == sm::Shape{0, 3 * mesh.coordinate()[1]});
  });
}

TEST_CASE("distribute: a shape in braces, its numbers known or not") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    sm::index_t const rows = 6;
    auto const x = sm::distribute(counting({6, 2}), {rows, 2}, mesh, sm::placements<sm::Shard<1>>);
    CHECK(x.shape() == sm::Shape{6, 2});
    CHECK(x.to_local().shape() == sm::Shape{6, 1});
    CHECK(same(sm::full_tensor(x), counting({6, 2})));
  });
}

TEST_CASE("distribute: cutting one's own copy needs no communication and gives the same") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {3});
    auto const list = sm::PlacementList{sm::Placement::strided(0, 2)};
    auto const a = sm::distribute(counting({11}), mesh, list);
    auto const b = sm::distribute(counting({11}), mesh, list, sm::DataSource::own);
    CHECK(same(a.to_local(), b.to_local()));
  });
}

TEST_CASE("distribute: 0-d and empty tensors") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto const scalar = sm::distribute(counting({}), mesh, sm::placements<sm::Replicate>);
    CHECK(scalar.to_local().span()[0] == 0.0F);
    auto const none = sm::distribute(counting({0, 4}), mesh, sm::placements<sm::Shard<1>>);
    CHECK(none.to_local().shape() == sm::Shape{0, 2});
    CHECK(sm::full_tensor(none).shape() == sm::Shape{0, 4});
  });
}

TEST_CASE("distribute: ranks outside the mesh hold shape (0) and take no part") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2}, {0, 2}, {});
    auto const t = sm::distribute(counting({5}), mesh, sm::placements<sm::Shard<0>>);
    CHECK(t.to_local().shape() == (world.rank() == 1   ? sm::Shape{0}
                                   : world.rank() == 0 ? sm::Shape{3}
                                                       : sm::Shape{2}));
    auto const r = sm::redistribute(t, sm::placements<sm::Replicate>);
    CHECK(r.to_local().shape() == (world.rank() == 1 ? sm::Shape{0} : sm::Shape{5}));
  });
}

TEST_CASE("from_local: the global shape of uneven parts is found by adding them up") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    sm::Layout const layout({7, 5}, {2, 2}, sm::placements<sm::Shard<0>, sm::Shard<1>>);
    sm::Tensor<float> const local(layout.local_shape(mesh.coordinate()));
    auto const t = sm::from_local(local, mesh, sm::placements<sm::Shard<0>, sm::Shard<1>>);
    CHECK(t.shape() == sm::Shape{7, 5});
    CHECK(t.to_local().data() == local.data());
  });
}

TEST_CASE(
    "from_local: parts that break the chunk rule are refused on every rank, naming the rank") {
  CHECK_THROWS_WITH_AS(
      sm::launch(sm::threads{3},
                 [](World& world) {
                   auto const mesh = sm::device_mesh(world, {3});
                   // 1, 2, 2 rows instead of 2, 2, 1: a balanced split is not the chunk rule.
                   sm::Tensor<float> const local(sm::Shape{world.rank() == 0 ? 1 : 2});
                   static_cast<void>(sm::from_local(local, mesh, sm::placements<sm::Shard<0>>));
                 }),
      doctest::Contains("the chunk rule gives this rank (2)"), sm::ShapeError);
}

TEST_CASE("partial: contributions add up; averages divide; both kinds mix") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto const mine = counting({5});
    using sm::Partial;
    using sm::ReduceOp;
    auto const mixed =
        sm::from_local(mine, mesh, sm::placements<Partial<>, Partial<ReduceOp::avg>>);
    auto const whole = sm::full_tensor(mixed);
    CHECK(whole.span()[4] == 8.0F);
    auto const top =
        sm::from_local(mine, mesh, sm::placements<Partial<ReduceOp::max>, sm::Replicate>);
    CHECK(sm::full_tensor(top).span()[3] == 3.0F);
  });
}

TEST_CASE("gather_to_first: only the first rank gets the tensor") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto const t =
        sm::distribute(counting({7, 5}), mesh, sm::placements<sm::Shard<0>, sm::Shard<0>>);
    auto const got = sm::gather_to_first(t);
    CHECK(same(got, world.rank() == 0 ? counting({7, 5}) : sm::Tensor<float>()));
  });
}

TEST_CASE("redistribute: the same under another name moves nothing") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {1, 2});
    auto const unmoved = [](auto const& before, auto const& after) {
      return before.to_local().data() == after.to_local().data();
    };
    auto const cut =
        sm::distribute(counting({8, 4}), mesh, sm::placements<sm::Replicate, sm::Shard<0>>);
    CHECK(unmoved(cut, sm::redistribute(cut, sm::placements<sm::Shard<0>, sm::Shard<0>>)));
    CHECK(unmoved(cut, sm::redistribute(cut, sm::placements<sm::Shard<1>, sm::Shard<0>>)));
    CHECK_FALSE(unmoved(cut, sm::redistribute(cut, sm::placements<sm::Replicate, sm::Shard<1>>)));
    auto const terms =
        sm::from_local(counting({4, 4}), mesh, sm::placements<sm::Partial<>, sm::Shard<0>>);
    auto const sum = sm::redistribute(terms, sm::placements<sm::Replicate, sm::Shard<0>>);
    CHECK(unmoved(terms, sum));
    CHECK(sum.layout().placements() == sm::to_list(sm::placements<sm::Replicate, sm::Shard<0>>));
  });
}

TEST_CASE("redistribute: ranks that ask for different things get an error, not a hang") {
  CHECK_THROWS_AS(sm::launch(sm::threads{2},
                             [](World& world) {
                               auto const mesh = sm::device_mesh(world, {2});
                               auto const t = sm::distribute(counting({4, 4}), mesh,
                                                             sm::placements<sm::Shard<0>>);
                               sm::PlacementList const to{world.rank() == 0
                                                              ? sm::Placement(sm::Replicate{})
                                                              : sm::Placement(sm::Shard{1})};
                               static_cast<void>(sm::redistribute(t, to));
                             }),
                  sm::MismatchError);
}

TEST_CASE("bad input: the error says what, where and how to mend it; nothing is communicated") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto const t = sm::distribute(counting({4}), mesh, sm::PlacementList{sm::Shard{0}});
    CHECK_THROWS_WITH_AS(
        static_cast<void>(sm::redistribute(t, sm::PlacementList{sm::Partial<>{}})),
        doctest::Contains("a Partial target placement is legal only where the source has the same "
                          "one; reduce to Shard or Replicate instead"),
        sm::InvalidArgument);
    CHECK_THROWS_WITH_AS(static_cast<void>(sm::redistribute(t, sm::PlacementList{sm::Shard{1}})),
                         doctest::Contains("out of range"), sm::InvalidArgument);
    CHECK_THROWS_WITH_AS(
        static_cast<void>(sm::distribute(counting({4}), mesh, sm::PlacementList{sm::Partial<>{}})),
        doctest::Contains("make partial tensors with from_local"), sm::InvalidArgument);
    CHECK_THROWS_WITH_AS(
        static_cast<void>(sm::distribute(counting({4}), {5}, mesh, sm::placements<sm::Shard<0>>)),
        doctest::Contains("the shape given is (5)"), sm::ShapeError);
    sm::Layout const layout({4}, {2}, sm::placements<sm::Shard<0>>);
    using Dist = sm::DistTensor<float, std::remove_const_t<decltype(mesh)>>;
    CHECK_THROWS_WITH_AS(Dist(mesh, layout, counting({3})), doctest::Contains("this rank's part"),
                         sm::ShapeError);
    CHECK_THROWS_WITH_AS(static_cast<void>(sm::Tensor<float>::from({3}, std::vector<float>{1, 2})),
                         doctest::Contains("needs 3 values, got 2"), sm::ShapeError);
  });
}

TEST_SUITE_END();

}  // namespace distribute_test
