// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// Meshes: an array of ranks with names, the groups along its dimensions, its parts, and what a rank
// outside of one sees.
#include <cstdio>
#include <string>

#include <shardmesh/comm.hpp>
#include <shardmesh/mesh.hpp>

namespace sm = shardmesh;

namespace {

/// "(0, 1)": where the calling rank stands.
template <class Mesh>
std::string place(Mesh const& mesh) {
  return mesh.is_member() ? sm::to_string(mesh.coordinate()) : std::string("outside");
}

std::string list(std::vector<int> const& ranks) {
  std::string text;
  for (int const rank : ranks) {
    text += text.empty() ? "" : " ";
    text += std::to_string(rank);
  }
  return text;
}

}  // namespace

int main() {
  // Six ranks that are threads of this program. Under torchrun, mpirun or srun they would be
  // processes: launch(environment{}, ...).
  sm::launch(sm::threads{6}, [](auto& world) {
    // 3 x 2 ranks, row by row: 0 1 / 2 3 / 4 5.
    auto const mesh = sm::device_mesh(world, {3, 2}, {"data", "model"});

    // Along each dimension there is a communicator, split off when it is first asked for.
    auto const& model_group = mesh.group("model");
    int sum = 0;
    for (int const rank : sm::all_gather_value(model_group, world.rank())) {
      sum += rank;
    }

    // A part of the mesh is a mesh: the caller's own line of it.
    auto const line = mesh["data"];

    // All of it as one dimension, for what is sharded over every rank.
    auto const flat = mesh.flatten("all");

    // A mesh over some ranks, in any order. The others have an empty handle, and make the same
    // calls.
    auto const few = sm::device_mesh<1>(world, {3}, {5, 0, 2}, {"few"});

    // Ranks print one after the other.
    for (int turn = 0; turn < world.size(); ++turn) {
      if (turn == world.rank()) {
        std::printf("rank %d: mesh %s, \"model\" group {%s} with sum %d, \"data\" line {%s}, flat "
                    "%s, few %s\n",
                    world.rank(), place(mesh).c_str(), list(mesh.group_ranks("model")).c_str(), sum,
                    list(line.ranks()).c_str(), place(flat).c_str(), place(few).c_str());
        std::fflush(stdout);
      }
      world.barrier();
    }
  });
}
