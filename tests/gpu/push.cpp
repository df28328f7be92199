// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Processes that write into each other's device memory, on a stand-in for devices that works in host memory: who
// writes what where, and that nobody waits for a process that has ended.
#include <shardmesh/comm/nccl/peer_push.hpp>

#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <shardmesh/comm/nccl/launch.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/tensor/redistribute.hpp>

#include "../comm/ranks.hpp"
#include "../support/sanitizers.hpp"
#include "fake_nccl.hpp"

namespace sm = shardmesh;

namespace {

using Space = sm::CudaMemory;
using World = sm::NcclCommunicator<sm::SocketCommunicator>;

void prepare_stand_in(char const* least_bytes) {
  fake::world().alone = true;
  fake::device().has_memory = true;
  ::setenv(sm::nccl::PeerPush::least_variable, least_bytes, 1);
}

float value_at(sm::index_t row, sm::index_t column) {
  return static_cast<float>(row * 100 + column);
}

/// Is what a rank holds of the matrix of `value_at` right?
template <class Dist>
bool is_right(Dist const& tensor) {
  sm::Shape const local = tensor.to_local().shape();
  bool right = true;
  for (sm::Piece const& piece : tensor.layout().pieces(tensor.mesh().coordinate())) {
    for (sm::index_t i = 0; i < piece.box.extent[0]; ++i) {
      for (sm::index_t j = 0; j < piece.box.extent[1]; ++j) {
        float const is =
            tensor.to_local().data()[(piece.local[0] + i) * local[1] + piece.local[1] + j];
        right = right && is == value_at(piece.box.offset[0] + i, piece.box.offset[1] + j);
      }
    }
  }
  return right;
}

template <class Mesh>
auto matrix(Mesh const& mesh,
            sm::PlacementList const& placements,
            sm::Shape const& whole = {13, 22}) {
  sm::Layout const layout(whole, mesh.shape(), placements);
  sm::Tensor<float, Space> local(layout.local_shape(mesh.coordinate()));
  sm::Shape const shape = local.shape();
  for (sm::Piece const& piece : layout.pieces(mesh.coordinate())) {
    for (sm::index_t i = 0; i < piece.box.extent[0]; ++i) {
      for (sm::index_t j = 0; j < piece.box.extent[1]; ++j) {
        local.data()[(piece.local[0] + i) * shape[1] + piece.local[1] + j] =
            value_at(piece.box.offset[0] + i, piece.box.offset[1] + j);
      }
    }
  }
  return sm::DistTensor<float, Mesh, sm::PlacementList, Space>(mesh, layout, local);
}

/// Every conversion between placements that do not sum. @returns how many results were wrong.
template <class Mesh>
int wrong_results(Mesh const& mesh, std::vector<sm::PlacementList> const& all) {
  int wrong = 0;
  for (sm::PlacementList const& from : all) {
    auto const source = matrix(mesh, from);
    for (sm::PlacementList const& to : all) {
      wrong += is_right(sm::redistribute(source, to)) ? 0 : 1;
    }
  }
  return wrong;
}

/// Runs `body(world, line, source)` with ranks in a line, and a matrix cut by rows.
template <class Body>
void launch_on_line(Body const& body) {
  prepare_stand_in("0");
  sm::launch(sm::nccl_environment{.timeout = test::patience}, [&body](World& world) {
    auto const line = sm::device_mesh<1>(world, {world.size()});
    body(world, line, matrix(line, {sm::Shard{0}}));
  });
}

/// Statuses of processes whose bodies return what is wrong.
template <class Body>
std::vector<int> statuses_of(int ranks, Body const& body) {
  return sm::spawn_processes(
      ranks,
      [&body] {
        std::string const problem = body();
        if (!problem.empty()) {
          std::fprintf(stderr, "%s\n", problem.c_str());
        }
        return problem.empty() ? 0 : 1;
      },
      60);
}

}  // namespace

#if SHARDMESH_TEST_MAY_FORK

TEST_CASE("processes write into each other's memory, whatever moves where") {
  for (int const ranks : {2, 4}) {
    auto const status = statuses_of(ranks, [] {
      prepare_stand_in("0");
      std::string problem;
      sm::launch(sm::nccl_environment{.timeout = test::patience}, [&](World& world) {
        sm::Placement const r = sm::Replicate{};
        sm::Placement const s0 = sm::Shard{0};
        sm::Placement const s1 = sm::Shard{1};
        auto const line = sm::device_mesh<1>(world, {world.size()});
        auto const grid = sm::device_mesh<2>(world, {world.size() / 2, 2});
        if (world.peer_push<Space>() == nullptr || line.comm().peer_push<Space>() == nullptr) {
          problem = "nobody reaches another's memory";
        }
        int const wrong =
            wrong_results(line, {{r}, {s0}, {s1}}) +
            wrong_results(grid, {{r, r}, {s0, r}, {r, s1}, {s0, s1}, {s1, s0}, {s0, s0}});
        if (wrong > 0) {
          problem = std::to_string(wrong) + " results are wrong";
        }
        if (fake::device().batches == 0) {
          problem = "no stream was given a number";
        }
      });
      return problem;
    });
    CHECK(status == std::vector<int>(static_cast<std::size_t>(ranks), 0));
  }
}

TEST_CASE("all ranks take the same size for too small, and nobody pushes where one turns it off") {
  auto const status = statuses_of(3, [] {
    int const rank = sm::read_environment().rank;
    prepare_stand_in(rank == 1 ? "1000000" : "0");
    std::string problem;
    sm::launch(sm::nccl_environment{.timeout = test::patience}, [&](World& world) {
      auto* const push = world.peer_push<Space>();
      problem = push != nullptr && push->least_bytes() == 1'000'000 ? "" : "ranks have other sizes";
    });
    if (rank == 1) {
      ::setenv(sm::nccl::PeerPush::variable, "0", 1);
    }
    sm::launch(sm::nccl_environment{.timeout = test::patience}, [&](World& world) {
      auto* const push = world.peer_push<Space>();
      bool const right = rank == 1 ? push == nullptr : push != nullptr && !push->reaches(1);
      problem += right ? "" : "a rank that does not want it is pushed to";
    });
    return problem;
  });
  CHECK(status == std::vector<int>(3, 0));
}

TEST_CASE("nobody waits for a process that was killed, wherever in a push it was") {
  constexpr int victim = 1;
  for (int step = 1; step <= 6; ++step) {
    CAPTURE(step);
    auto const status = statuses_of(3, [step] {
      std::string problem = "no error";
      try {
        launch_on_line([step](World const& world, auto const&, auto const& source) {
          world.barrier();
          if (world.rank() == victim) {
            fake::device().dies_before = fake::device().batches + step;
          }
          for (int i = 0; i < 1'000'000; ++i) {
            static_cast<void>(sm::redistribute(source, sm::PlacementList{sm::Shard{1}}));
          }
        });
      } catch (sm::RankFailed const& error) {
        problem = error.rank() == victim ? "" : error.what();
      }
      return problem;
    });
    CHECK(status == std::vector<int>{0, 128 + SIGKILL, 0});
  }
}

TEST_CASE("ranks that push different things get an error that names both sides") {
  for (std::string const kind : {"another target", "another shape", "a barrier", "a call less"}) {
    CAPTURE(kind);
    auto const status = statuses_of(2, [&kind] {
      std::string problem = "no error";
      try {
        launch_on_line([&kind](World const& world, auto const& line, auto const& source) {
          sm::PlacementList const columns{sm::Shard{1}};
          bool const differs = world.rank() == 1;
          if (differs && kind == "another target") {
            static_cast<void>(sm::full_tensor(source));
          } else if (differs && kind == "another shape") {
            static_cast<void>(sm::redistribute(matrix(line, {sm::Shard{0}}, {26, 22}), columns));
          } else if (differs && kind == "a barrier") {
            world.barrier();
          } else if (!differs || kind != "a call less") {
            static_cast<void>(sm::redistribute(source, columns));
          }
          static_cast<void>(sm::full_tensor(source));
          world.barrier();
        });
      } catch (sm::MismatchError const& error) {
        std::string const text = error.what();
        bool const both =
            text.find("rank 0") != std::string::npos && text.find("rank 1") != std::string::npos;
        problem = both ? "" : text;
      } catch (sm::Error const& error) {
        problem = error.what();
      }
      return problem;
    });
    CHECK(status == std::vector<int>(2, 0));
  }
}

#endif
