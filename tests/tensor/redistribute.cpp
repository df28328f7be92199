// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/fused_exchange.hpp>
#include <shardmesh/tensor/redistribute.hpp>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include "../support/redistribute_cases.hpp"
#include "../support/sample.hpp"

namespace redistribute_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using sm::PlacementList;
using sm::Shape;
using sm::Tensor;
template <class Mesh>
using Dist = sm::DistTensor<float, std::remove_cvref_t<Mesh>, PlacementList>;

namespace {

/// A tensor with known elements; where a placement is partial, each rank has its own terms.
template <class Mesh>
Dist<Mesh> sample(Mesh const& mesh, Shape const& shape, PlacementList const& list, float first) {
  sm::Layout const layout(shape, mesh.shape(), list);
  Tensor<float> local(layout.local_shape(mesh.coordinate()));
  for (std::size_t i = 0; i < local.span().size(); ++i) {
    local.span()[i] = first + static_cast<float>(i) + static_cast<float>(100 * mesh.comm().rank());
  }
  return {mesh, layout, local};
}

bool equal(Tensor<float> const& a, Tensor<float> const& b) {
  return a.shape() == b.shape() && std::equal(a.span().begin(), a.span().end(), b.span().begin());
}

}  // namespace

TEST_SUITE_BEGIN("tensor.redistribute");

TEST_CASE("redistribute_into: what redistribute gives, where the caller wants it") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    int written = 0;
    for (PlacementList const& from : test::all_placements(2, 2, true)) {
      for (PlacementList const& to : test::all_placements(2, 2, true)) {
        if (!sm::detail::conversion_is_legal(from, to)) {
          continue;
        }
        auto const source = sample(mesh, {5, 3}, from, 1);
        auto const wanted = sm::redistribute(source, to);
        auto const place = sample(mesh, {5, 3}, to, -1);
        float const* const address = place.to_local().data();
        sm::redistribute_into(source, place);
        REQUIRE(equal(place.to_local(), wanted.to_local()));
        REQUIRE(place.to_local().data() == address);
        ++written;
      }
    }
    CHECK(written > 200);
    // The same part under another name, and into itself.
    auto const x = sample(mesh, {4}, {sm::Shard{0}, sm::Replicate{}}, 3);
    sm::redistribute_into(x, x);
    auto const copy = sample(mesh, {4}, {sm::Shard{0}, sm::Replicate{}}, 0);
    sm::redistribute_into(x, copy);
    CHECK(equal(x.to_local(), copy.to_local()));
  });
}

TEST_CASE("redistribute_into: results that cannot be are refused on every rank") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto const turned = sm::device_mesh<1>(world, {2}, {1, 0}, {});
    auto const x = sample(mesh, {4}, {sm::Shard{0}}, 0);
    auto const whole = [](auto const& on, Shape const& shape) {
      return sample(on, shape, {sm::Replicate{}}, 0);
    };
    CHECK_THROWS_WITH_AS(sm::redistribute_into(x, whole(turned, {4})),
                         doctest::Contains("use transfer to send it to another mesh"),
                         sm::InvalidArgument);
    CHECK_THROWS_WITH_AS(sm::redistribute_into(x, whole(mesh, {5})),
                         doctest::Contains("they must be equal"), sm::ShapeError);
    CHECK_THROWS_WITH_AS(sm::redistribute_into(x, sample(mesh, {4}, {sm::Partial<>{}}, 0)),
                         doctest::Contains("a Partial target placement is legal only where"),
                         sm::InvalidArgument);
    auto const keep = std::make_shared<int>(0);
    Tensor<float> const memory(Shape{4});
    sm::Layout const rows(Shape{4}, Shape{2}, {sm::Shard{0}});
    sm::Layout const all(Shape{4}, Shape{2}, {sm::Replicate{}});
    Dist<decltype(mesh)> const part(mesh, rows,
                                    Tensor<float>::view(Shape{2}, {keep, memory.data() + 1}));
    Dist<decltype(mesh)> const result(mesh, all, memory);
    CHECK_THROWS_WITH_AS(sm::redistribute_into(part, result), doctest::Contains("share elements"),
                         sm::InvalidArgument);
  });
}

TEST_CASE("redistribute of many tensors: as one by one, in one exchange") {
  for (int const ranks : {1, 2, 3, 4}) {
    sm::launch(sm::threads{ranks}, [](World& world) {
      auto const mesh = sm::device_mesh(world, {static_cast<sm::index_t>(world.size())});
      std::vector<Dist<decltype(mesh)>> sources;
      for (sm::index_t n = 0; n < 9; ++n) {
        PlacementList const list{n % 3 == 0   ? sm::Placement(sm::Partial<>{})
                                 : n % 3 == 1 ? sm::Placement(sm::Shard{0})
                                              : sm::Placement(sm::Replicate{})};
        sources.push_back(sample(mesh, {n, 3}, list, static_cast<float>(n)));
      }
      for (PlacementList const& target :
           {PlacementList{sm::Replicate{}}, PlacementList{sm::Shard{1}}}) {
        auto const together = sm::redistribute(sources, target);
        REQUIRE(together.size() == sources.size());
        for (std::size_t i = 0; i < sources.size(); ++i) {
          CHECK(equal(together[i].to_local(), sm::redistribute(sources[i], target).to_local()));
        }
      }
      CHECK(sm::redistribute(std::vector<Dist<decltype(mesh)>>{}, PlacementList{sm::Replicate{}})
                .empty());
      auto const turned = sm::device_mesh<1>(world, {1}, {0}, {});
      if (world.rank() == 0 && world.size() > 1) {
        auto mixed = sources;
        mixed.push_back(sample(turned, {2, 3}, {sm::Shard{0}}, 0));
        CHECK_THROWS_WITH_AS(
            static_cast<void>(sm::redistribute(mixed, PlacementList{sm::Replicate{}})),
            doctest::Contains("call it for each mesh"), sm::InvalidArgument);
      }
    });
  }
}

TEST_CASE("redistribute of many tensors: ranks that bring others are told both sides") {
  std::atomic<int> told{0};
  CHECK_THROWS_AS(sm::launch(sm::threads{2},
                             [&](World& world) {
                               auto const mesh = sm::device_mesh(world, {2});
                               std::vector<Dist<decltype(mesh)>> sources{
                                   sample(mesh, {4}, {sm::Shard{0}}, 0),
                                   sample(mesh, {world.rank() == 0 ? 6 : 8}, {sm::Shard{0}}, 0)};
                               try {
                                 static_cast<void>(
                                     sm::redistribute(sources, PlacementList{sm::Replicate{}}));
                               } catch (sm::MismatchError const& error) {
                                 std::string const what = error.what();
                                 told += what.find("(6) on mesh (2)") != std::string::npos &&
                                         what.find("(8) on mesh (2)") != std::string::npos;
                                 throw;
                               }
                             }),
                  sm::Error);
  CHECK(told.load() == 2);
}

TEST_CASE("gather_to_first: partial tensors are reduced on the way") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {3});
    auto const x = sample(mesh, {4}, {sm::Partial<>{}}, 1);
    auto const whole = sm::gather_to_first(x);
    CHECK(whole.shape() == (world.rank() == 0 ? Shape{4} : Shape{0}));
    if (world.rank() == 0) {
      for (std::size_t i = 0; i < 4; ++i) {
        CHECK(whole.span()[i] == 3.0F * static_cast<float>(i + 1) + 300.0F);
      }
    }
  });
}

TEST_CASE("redistribute: every legal pair of placements on meshes up to 3-D and 8 ranks") {
  std::atomic<long> cases{0};
  unsigned const seed = test::sanitized ? static_cast<unsigned>(test::sample_seed()) : 11;
  for (int ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
    sm::launch(sm::threads{ranks}, [&](sm::ThreadsCommunicator& world) {
      auto const report = test::run_matrix<sm::HostMemory>(world, seed, test::sanitized ? 5 : 1);
      INFO(report.first_wrong);
      CHECK(report.wrong == 0);
      if (world.rank() == 0) {
        cases += report.cases;
      }
    });
  }
  MESSAGE(cases.load() << " cases");
  CHECK(cases.load() >= (test::sanitized ? 3000 : 20000));
}

TEST_SUITE_END();

}  // namespace redistribute_test
