// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/tensor/execute.hpp>

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/sockets.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/layout/placements.hpp>
#include <shardmesh/plan/plan.hpp>

#include "../support/layouts.hpp"

namespace execute_test {

namespace sm = shardmesh;

using sm::HostMemory;
using sm::Layout;

namespace {

/// One tensor of a fused exchange: element i has the value i, times the rank + 1 where partial.
template <class T>
struct Case {
  Layout from;
  Layout to;
  sm::RankStep step;
  std::vector<T> source;
  std::vector<T> target;

  Case(Layout const& a, Layout const& b, int rank) : from(a), to(b), step(sm::moves(a, b, rank)) {
    T const weight = a.has_partial() ? static_cast<T>(rank + 1) : T(1);
    for (auto const i : test::elements_by_pieces(a, sm::unravel(rank, a.mesh()))) {
      source.push_back(static_cast<T>(static_cast<T>(i) * weight));
    }
    target.resize(static_cast<std::size_t>(sm::volume(step.target_shape)), T(99));
  }

  [[nodiscard]] sm::ExchangeJob job() {
    return {&step, sm::dtype_of<T>, source.data(), target.data()};
  }

  /// Is the target what cutting the whole tensor gives? Terms of k ranks add up to 1 + ... + k.
  [[nodiscard]] bool good(int rank) const {
    auto const k = static_cast<T>(from.ranks());
    T const weight = from.has_partial() ? static_cast<T>(k * (k + 1) / 2) : T(1);
    std::vector<T> wanted;
    for (auto const i : test::elements_by_pieces(to, sm::unravel(rank, to.mesh()))) {
      wanted.push_back(static_cast<T>(static_cast<T>(i) * weight));
    }
    return wanted == target;
  }
};

/// Four tensors of different types, shapes and placements in one exchange. @returns what is wrong.
template <class Comm>
std::string exchange_four(Comm const& comm) {
  sm::index_t const n = comm.size();
  sm::Shape const mesh{n};
  int const rank = comm.rank();
  Case<float> a({{7, 5}, mesh, sm::placements<sm::Shard<0>>},
                {{7, 5}, mesh, sm::placements<sm::Shard<1>>}, rank);
  Case<std::int64_t> b({{9}, mesh, sm::placements<sm::Partial<>>},
                       {{9}, mesh, sm::placements<sm::Shard<0>>}, rank);
  Case<std::uint8_t> c({{11, 2}, mesh, sm::PlacementList{sm::Placement::strided(0, 2)}},
                       {{11, 2}, mesh, sm::placements<sm::Replicate>}, rank);
  Case<double> d({{}, mesh, sm::placements<sm::Partial<>>},
                 {{}, mesh, sm::placements<sm::Replicate>}, rank);
  std::vector<sm::ExchangeJob> const jobs{a.job(), b.job(), c.job(), d.job()};
  sm::execute<HostMemory>(comm, jobs, "four tensors");
  std::string wrong = a.good(rank) ? "" : "float32 ";
  wrong += b.good(rank) ? "" : "int64 ";
  wrong += c.good(rank) ? "" : "uint8 ";
  wrong += d.good(rank) ? "" : "float64 ";
  return wrong;
}

/// Calls `body` on socket ranks that are threads of this process.
template <class Body>
void run_sockets(int ranks, Body body) {
  int const port = sm::detail::Socket::listen(0).port();
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&body, rank, ranks, port] {
      body(sm::SocketCommunicator("127.0.0.1", port, rank, ranks, std::chrono::minutes(2)));
    });
  }
}

/// Counts the exchanges of a socket communicator.
struct Counting : sm::SocketCommunicator {
  Counting() = default;
  explicit Counting(sm::SocketCommunicator const& comm) : sm::SocketCommunicator(comm) {}
  [[nodiscard]] Counting split(int color, int key, sm::Call const& call = "split") const {
    return Counting(sm::SocketCommunicator::split(color, key, call));
  }
  template <class Space>
  void exchange(std::span<sm::Message const> sends,
                std::span<sm::Message> receives,
                typename Space::Stream = {},
                sm::Call const& call = "exchange") const {
    ++exchanges;
    messages += sends.size();
    sm::SocketCommunicator::exchange<Space>(sends, receives, {}, call);
  }
  mutable int exchanges = 0;
  mutable std::size_t messages = 0;
};

}  // namespace

TEST_SUITE_BEGIN("tensor.execute");

TEST_CASE("execute: several tensors as one exchange, in place between threads") {
  for (int ranks : {1, 2, 3, 4, 8}) {
    sm::launch(sm::threads{ranks},
               [](sm::ThreadsCommunicator& world) { CHECK(exchange_four(world) == ""); });
  }
}

TEST_CASE("execute: several tensors as one exchange, packed between processes") {
  for (int ranks : {1, 2, 3, 4}) {
    run_sockets(ranks,
                [](sm::SocketCommunicator const& world) { CHECK(exchange_four(world) == ""); });
  }
}

TEST_CASE("execute: a list without tensors is legal") {
  sm::launch(sm::threads{2}, [](sm::ThreadsCommunicator& world) {
    CHECK_NOTHROW(sm::execute<HostMemory>(world, {}, "nothing"));
  });
  run_sockets(2, [](sm::SocketCommunicator const& world) {
    CHECK_NOTHROW(sm::execute<HostMemory>(world, {}, "nothing"));
  });
}

TEST_CASE("execute: all tensors of a pair of ranks travel as one message") {
  run_sockets(3, [](sm::SocketCommunicator const& world) {
    Counting const comm(world);
    sm::Shape const mesh{3};
    std::vector<Case<float>> cases;
    for (sm::index_t rows = 3; rows < 8; ++rows) {
      cases.emplace_back(Layout({rows, 4}, mesh, sm::placements<sm::Shard<0>>),
                         Layout({rows, 4}, mesh, sm::placements<sm::Shard<1>>), world.rank());
    }
    std::vector<sm::ExchangeJob> jobs;
    for (auto& one : cases) {
      jobs.push_back(one.job());
    }
    sm::execute<HostMemory>(comm, jobs, "five tensors");
    CHECK(comm.exchanges == 1);
    CHECK(comm.messages <= 2);
    for (auto const& one : cases) {
      CHECK(one.good(world.rank()));
    }
  });
}

TEST_CASE("execute: ranks that bring different operations get an error that shows both") {
  sm::launch(sm::threads{2}, [](sm::ThreadsCommunicator& world) {
    Case<float> one({{4}, {2}, sm::placements<sm::Shard<0>>},
                    {{4}, {2}, sm::placements<sm::Replicate>}, world.rank());
    std::vector<sm::ExchangeJob> const jobs{one.job()};
    std::string const mine = world.rank() == 0 ? "weight" : "bias";
    auto const words = [&mine] { return mine; };
    CHECK_THROWS_WITH_AS(
        sm::execute<HostMemory>(world, jobs,
                                sm::Call("redistribute", sm::Fingerprint().add(mine), words)),
        "shardmesh::redistribute: ranks disagree; rank 0 has weight, rank 1 has bias; all ranks "
        "must pass the same arguments in the same order",
        sm::MismatchError);
    CHECK(one.target == std::vector<float>(4, 99.0F));
    world.barrier();
  });
}

TEST_SUITE_END();

}  // namespace execute_test
