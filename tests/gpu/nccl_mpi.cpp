// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// NCCL processes that mpirun started and MPI connects, sharing the GPUs there are. Rank 0 prints a
// table; exits with 0, 1 or 77.
#include <cstdio>
#include <exception>
#include <string>

#include <shardmesh/comm/nccl/mpi_launch.hpp>

#include "../support/behaviours.hpp"
#include "../support/redistribute_cases.hpp"

namespace sm = shardmesh;

int main() {
  int failures = 0;
  try {
    sm::launch(sm::nccl_mpi{.share_devices = true}, [&failures](auto& world) {
      auto const all = [&](std::string const& what, std::string const& problem) {
        std::string first;
        for (std::string const& one : sm::all_gather_text(world, problem)) {
          first = first.empty() ? one : first;
        }
        failures += first.empty() ? 0 : 1;
        if (world.rank() == 0) {
          std::printf("nccl, %d MPI processes: %-46s %s\n", world.size(), what.c_str(),
                      first.empty() ? "ok" : first.c_str());
        }
      };
      test::run_rows<sm::CudaMemory>(world, all);
      auto const matrix = test::run_matrix<sm::CudaMemory>(world, 31, 11);
      all("redistribute matrix, " + std::to_string(matrix.cases) + " cases", matrix.first_wrong);
    });
  } catch (sm::DeviceError const& error) {
    std::printf("SKIP: %s\n", error.what());
    return 77;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return failures == 0 ? 0 : 1;
}
