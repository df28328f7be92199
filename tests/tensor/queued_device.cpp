// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The order of work on devices, where there is none: streams that are late, memory that is spoiled before it is used
// and after it is freed (support/queued_device.hpp).
#include <algorithm>
#include <cstddef>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/fused_exchange.hpp>
#include <shardmesh/tensor/redistribute.hpp>
#include <shardmesh/tensor/transfer.hpp>

#include "../support/fake_device.hpp"
#include "../support/queued_device.hpp"
#include "../support/transfer_cases.hpp"

namespace queued_device_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("tensor.queued_device");

namespace {

using test::QueuedDevice;
using World = sm::ThreadsCommunicator;

/// Each tensor of the matrix goes from one layout to another and on, all on one stream of the rank's own, while the
/// host does not wait; what was between is freed at once.
template <class Comm>
test::CaseReport run_chains(Comm const& world, std::size_t step) {
  auto const mesh = sm::device_mesh<2>(world, {2, 2});
  auto const owned = QueuedDevice::make_stream();
  auto const stream = owned.get();
  sm::Shape const shape{7, 6};
  auto const lists = test::all_placements(2, 2, false);
  test::CaseReport report;
  for (std::size_t i = 0; i < lists.size() * lists.size(); i += step) {
    auto const& from = lists[i / lists.size()];
    auto const& to = lists[i % lists.size()];
    if (!sm::detail::conversion_is_legal(from, to)) {
      continue;
    }
    sm::Layout const source(shape, mesh.shape(), from);
    sm::Layout const target(shape, mesh.shape(), to);
    auto const start = test::expected_local<float>(source, source, mesh.coordinate());
    auto const local = sm::Tensor<float>::from(source.local_shape(mesh.coordinate()), start);
    using Dist =
        sm::DistTensor<float, std::remove_const_t<decltype(mesh)>, sm::PlacementList, QueuedDevice>;
    auto moved = Dist(mesh, source, local.template clone<QueuedDevice>(stream));
    moved = sm::redistribute(moved, to, stream);
    bool const partial =
        std::any_of(to.begin(), to.end(), [](auto const& p) { return p.is_partial(); });
    if (!partial) {
      moved = sm::redistribute(moved, sm::PlacementList{sm::Shard{1}, sm::Replicate{}}, stream);
      moved = sm::redistribute(moved, to, stream);
    }
    auto const got = moved.to_local().template clone<sm::HostMemory>(stream);
    stream.synchronize();
    auto const wanted = test::expected_local<float>(target, source, mesh.coordinate());
    ++report.cases;
    report.wrong += std::equal(wanted.begin(), wanted.end(), got.data()) ? 0 : 1;
  }
  return report;
}

}  // namespace

TEST_CASE("exchanges between threads keep the order of streams: the redistribute matrix") {
  for (int const ranks : {2, 4}) {
    sm::launch(sm::threads{ranks}, [](World& world) {
      auto const report = test::run_matrix<QueuedDevice>(world, 7, 11);
      CHECK_MESSAGE(report.wrong == 0, report.first_wrong);
      CHECK(report.cases > 20);
    });
  }
}

TEST_CASE("exchanges of messages keep the order of streams: the redistribute matrix") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const report = test::run_matrix<QueuedDevice>(test::PackedThreads(world), 7, 23);
    CHECK_MESSAGE(report.wrong == 0, report.first_wrong);
    CHECK(report.cases > 20);
  });
}

TEST_CASE("one exchange after the other on a stream of the rank's own, without waiting") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const report = run_chains(world, 5);
    CHECK(report.wrong == 0);
    CHECK(report.cases > 10);
  });
  sm::launch(sm::threads{4}, [](World& world) {
    auto const report = run_chains(test::PackedThreads(world), 11);
    CHECK(report.wrong == 0);
    CHECK(report.cases > 5);
  });
}

TEST_CASE("what stays on a rank and is copied on a side stream keeps the order of streams") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    auto const owned = QueuedDevice::make_stream();
    auto const stream = owned.get();
    sm::Layout const rows(sm::Shape{2048, 1100}, mesh.shape(), sm::PlacementList{sm::Shard{0}});
    auto const start = test::expected_local<float>(rows, rows, mesh.coordinate());
    auto const local = sm::Tensor<float>::from(rows.local_shape(mesh.coordinate()), start);
    CHECK(local.bytes() >= sm::detail::bytes_worth_a_side_stream);
    using Dist =
        sm::DistTensor<float, std::remove_const_t<decltype(mesh)>, sm::PlacementList, QueuedDevice>;
    auto const source = Dist(mesh, rows, local.clone<QueuedDevice>(stream));
    // What was between is freed at once.
    auto const whole = sm::redistribute(source, sm::PlacementList{sm::Replicate{}}, stream);
    auto const back = sm::redistribute(whole, sm::PlacementList{sm::Shard{0}}, stream);
    auto const got = back.to_local().clone<sm::HostMemory>(stream);
    stream.synchronize();
    CHECK(std::equal(start.begin(), start.end(), got.data()));
  });
}

TEST_CASE("transfers between meshes keep the order of streams") {
  sm::launch(sm::threads{5}, [](World& world) {
    auto const report = test::run_transfers<QueuedDevice>(world, 3, 6, 100);
    CHECK_MESSAGE(report.wrong == 0, report.first_wrong);
    CHECK(report.cases == 100);
  });
}

TEST_SUITE_END();

}  // namespace queued_device_test
