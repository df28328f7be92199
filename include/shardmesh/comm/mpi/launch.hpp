// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <string>

#include <mpi.h>

#include <shardmesh/comm/limits.hpp>
#include <shardmesh/comm/mpi/communicator.hpp>

namespace shardmesh {
inline namespace v0 {

/// One rank a process, started by mpirun or srun; tensors in host memory, data by MPI.
struct mpi {
  /// How long a rank waits for the others before it gives up.
  Limits timeout = {};
};

namespace detail {

/// MPI, initialised unless the host program has done so.
class MpiRuntime {
 public:
  MpiRuntime() {
    int over = 0;
    MPI_Finalized(&over);
    if (over != 0) {
      throw InvalidArgument("shardmesh::launch: MPI has been finalized, and starts only once in a "
                            "process; call MPI_Init_thread before the first of several launches");
    }
    int started = 0;
    MPI_Initialized(&started);
    if (started == 0) {
      int level = 0;  // less serves as well, but then no thread can answer for a rank that works
      mpi_check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread");
      ours_ = true;
    }
  }

  /// Not done by the destructor: MPI_Finalize waits for all ranks, so it hangs after a failure.
  void finalize() const {
    if (ours_) {
      mpi_check(MPI_Finalize(), "MPI_Finalize");
    }
  }

 private:
  bool ours_ = false;
};

/// A program linked to one MPI and started by another's mpirun is as many jobs of one rank.
inline void check_launcher(int size) {
  for (char const* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    char const* const text = std::getenv(name);
    if (size == 1 && text != nullptr && std::atoi(text) > 1) {
      throw InvalidArgument(
          std::string("shardmesh::launch: MPI says that this process is alone, but "
                      "its launcher started more (") +
          name + "=" + text +
          "); use the mpirun of the MPI that the program is linked to, or srun "
          "--mpi=pmix or --mpi=pmi2");
    }
  }
}

/// Runs `body(world)` as one rank of MPI; the other ranks hear of its failure.
template <class Body>
void run_mpi_rank(Limits timeout, Body&& body) {
  MpiRuntime const runtime;
  {
    auto world = MpiCommunicator::from_native_handle(MPI_COMM_WORLD, timeout);
    check_launcher(world.size());
    try {
      body(world);
      world.barrier("end of launch");
    } catch (std::exception const& error) {
      world.report_failure(error.what());
      throw;
    } catch (...) {
      world.report_failure("an exception that is no std::exception");
      throw;
    }
  }
  runtime.finalize();
}

/// A rank's place among those on its host.
struct MpiLocalPlace {
  int rank = 0;
  int size = 0;
};

/// @collective over `world`.
[[nodiscard]] inline MpiLocalPlace local_place(MpiCommunicator const& world) {
  std::array<char, MPI_MAX_PROCESSOR_NAME> host{};
  int length = 0;
  mpi_check(MPI_Get_processor_name(host.data(), &length), "MPI_Get_processor_name");
  auto const hosts = all_gather_text(world, host.data());
  auto const begin = hosts.begin();
  auto const count = [&](auto end) {
    return static_cast<int>(std::count(begin, end, std::string(host.data())));
  };
  return {count(begin + world.rank()), count(hosts.end())};
}

}  // namespace detail

/// Runs `body(communicator)` as the rank that mpirun made this process. Initialises MPI if nobody
/// has, with MPI_THREAD_MULTIPLE where it can do that, and finalizes it if it did, but not after a
/// failure: the process must end by itself then, with a status that is not 0, and must not call
/// MPI_Finalize.
/// @throws what the body throws, after telling the other ranks.
template <class Body>
void launch(mpi const& options, Body&& body) {
  detail::run_mpi_rank(options.timeout, body);
}

}  // namespace v0
}  // namespace shardmesh
