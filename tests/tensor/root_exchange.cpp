// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/tensor/root_exchange.hpp>

#include <algorithm>
#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/tensor.hpp>

#include "../support/fake_device.hpp"
#include "../support/layouts.hpp"
#include "../support/sample.hpp"

namespace root_exchange_test {

namespace sm = shardmesh;

using sm::HostMemory;
using sm::index_t;
using sm::Layout;
using sm::RootDirection;
using sm::Shape;
using sm::Tensor;

namespace {

/// The elements that a rank holds, the value of each its number in the whole tensor.
template <class Space>
Tensor<index_t, Space> local_of(Layout const& layout, int rank) {
  auto const values = test::elements_by_naive_cuts(
      layout.shape(), layout.mesh(), layout.placements(), sm::unravel(rank, layout.mesh()));
  return Tensor<index_t, Space>::from(layout.local_shape(sm::unravel(rank, layout.mesh())), values);
}

template <class Space>
bool equal(Tensor<index_t, Space> const& a, Tensor<index_t, Space> const& b) {
  auto const x = sm::to_host(a);
  auto const y = sm::to_host(b);
  return a.shape() == b.shape() && std::equal(x.span().begin(), x.span().end(), y.span().begin());
}

std::vector<Layout> layouts_of(index_t ranks) {
  std::vector<Layout> layouts;
  std::mt19937 random(7);
  for (Shape const& mesh : {Shape{ranks}, Shape{2, ranks / 2}}) {
    for (Shape const& shape :
         {Shape{}, Shape{1}, Shape{9}, Shape{7, 5}, Shape{6, 4, 3}, Shape{0, 2}}) {
      for (auto const& list : test::shard_placements(shape.size(), mesh.size())) {
        if (random() % 4 == 0) {
          layouts.emplace_back(shape, mesh, list);
        }
      }
    }
  }
  return layouts;
}

/// Gathers all layouts as one exchange to two roots, and scatters them again.
template <class Space, class Comm>
void gather_and_scatter(Comm const& comm, std::size_t ceiling) {
  auto const layouts = layouts_of(comm.size());
  std::vector<Tensor<index_t, Space>> locals;
  std::vector<Tensor<index_t>> wholes;
  std::vector<sm::RootJob> jobs;
  for (int const root : {1, comm.size() - 1}) {
    for (Layout const& layout : layouts) {
      locals.push_back(local_of<Space>(layout, comm.rank()));
      sm::RootJob job{layout, root, sm::DType::int64, locals.back().data(), nullptr};
      if (comm.rank() == root) {
        wholes.emplace_back(layout.shape());
        job.target = wholes.back().data();
      }
      jobs.push_back(job);
    }
  }
  test::FakeDevice::use().peak = test::FakeDevice::use().live;
  std::size_t const before = test::FakeDevice::use().live;
  auto const report =
      sm::exchange_with_root<Space>(comm, "gather", RootDirection::gather, jobs, ceiling);
  CHECK(report.peak_staging_bytes <= ceiling);
  if (Space::kind == sm::MemoryKind::cuda) {
    CHECK(test::FakeDevice::use().peak - before == report.peak_staging_bytes);
  }
  bool const is_root = comm.rank() == 1 || comm.rank() == comm.size() - 1;
  CHECK((report.received_bytes > 0) == is_root);
  std::size_t next = 0;
  for (sm::RootJob& job : jobs) {
    if (comm.rank() == job.root) {
      Layout const one(job.layout.shape(), Shape{1}, {sm::Replicate{}});
      CHECK(equal(wholes[next], local_of<HostMemory>(one, 0)));
      job.source = wholes[next++].data();
    } else {
      job.source = nullptr;
    }
  }
  std::vector<Tensor<index_t, Space>> targets;
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    targets.push_back(Tensor<index_t, Space>::zeros(locals[j].shape()));
    jobs[j].target = targets.back().data();
  }
  auto const back =
      sm::exchange_with_root<Space>(comm, "gather", RootDirection::scatter, jobs, ceiling);
  CHECK(back.peak_staging_bytes <= ceiling);
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    CHECK(equal(targets[j], locals[j]));
  }
}

}  // namespace

TEST_SUITE_BEGIN("tensor.root_exchange");

TEST_CASE("to roots and back: every element, within the ceiling") {
  for (int const ranks : {4, 6}) {
    for (int const bytes : test::some_of({16, 100, 4096}, 3, static_cast<std::size_t>(ranks / 2))) {
      auto const ceiling = static_cast<std::size_t>(bytes);
      sm::launch(sm::threads{ranks}, [ceiling](sm::ThreadsCommunicator& world) {
        test::PackedThreads const packed(world);
        gather_and_scatter<test::FakeDevice>(packed, ceiling);  // messages, through slots
        gather_and_scatter<HostMemory>(packed, ceiling);        // messages, in place
        gather_and_scatter<test::FakeDevice>(world, ceiling);   // straight into place
      });
    }
  }
}

TEST_CASE("a larger ceiling takes fewer rounds; without messages there is no staging") {
  sm::launch(sm::threads{2}, [](sm::ThreadsCommunicator& world) {
    Layout const layout(Shape{64, 8}, Shape{2}, {sm::Shard{0}});
    auto const local = local_of<test::FakeDevice>(layout, world.rank());
    Tensor<index_t> const whole(world.rank() == 0 ? layout.shape() : Shape{0});
    std::vector<sm::RootJob> const jobs{
        {layout, 0, sm::DType::int64, local.data(), world.rank() == 0 ? whole.data() : nullptr}};
    test::PackedThreads const packed(world);
    auto const gather = [&](auto const& comm, std::size_t ceiling) {
      return sm::exchange_with_root<test::FakeDevice>(comm, "gather", RootDirection::gather, jobs,
                                                      ceiling);
    };
    auto const small = gather(packed, 1024);  // 2 KiB travel in tiles of 512 bytes
    CHECK(small.rounds == 4);
    CHECK(small.peak_staging_bytes == (world.rank() == 0 ? 1024 : 0));  // rank 1 sends in place
    auto const large = gather(packed, 1U << 20);
    CHECK(large.rounds == 1);
    CHECK(large.peak_staging_bytes == (world.rank() == 0 ? 2048 : 0));
    CHECK(large.sent_bytes == (world.rank() == 0 ? 0 : 2048));
    CHECK(gather(world, 16).peak_staging_bytes == 0);
    CHECK_THROWS_WITH_AS(gather(packed, 15), doctest::Contains("raise ceiling_bytes"),
                         sm::InvalidArgument);
  });
}

TEST_SUITE_END();

}  // namespace root_exchange_test
