// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Resumes a hybrid-sharded model from a checkpoint that PyTorch wrote, trains on, saves, and resumes
// on other meshes; compares the full state bit by bit each time. The job itself is in
// support/resume.hpp; here it is started on the engine and in the memory that the user names.
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <shardmesh/processes.hpp>
#include <shardmesh/shardmesh.hpp>
#ifdef EXAMPLE_WITH_CUDA
#include <shardmesh/cuda.hpp>
#endif
#ifdef EXAMPLE_WITH_NCCL
#include <shardmesh/nccl.hpp>
#endif
#ifdef EXAMPLE_WITH_MPI
#include <shardmesh/mpi.hpp>
#ifdef EXAMPLE_WITH_NCCL
#include <shardmesh/comm/nccl/mpi_launch.hpp>
#endif
#endif

#ifdef EXAMPLE_WITH_CUDA
#include "support/dense_math_cuda.hpp"
#endif
#include "support/resume.hpp"

namespace {

namespace sm = shardmesh;

struct Command {
  std::string engine = "threads";
  std::string device = "host";
  int ranks = 4;
  resume::Options job;
};

/// Launches the ranks and runs the job on each; the summary is rank 0's. Returns the exit status.
template <class Space, class Engine>
int run_on(Engine const& engine, resume::Options const& options) {
  bool equal = true;
  std::mutex mutex;
  sm::launch(engine, [&](auto& world) {
    auto const phases =
        resume::Job<Space, std::remove_cvref_t<decltype(world)>>(world, options).run();
    bool const mine = resume::all_equal(phases);
    if (world.rank() == 0) {
      resume::print_summary(phases);
    }
    std::lock_guard const lock(mutex);
    equal = equal && mine;
  });
  return equal ? 0 : 1;
}

[[noreturn]] void refuse(std::string const& what) {
  throw sm::InvalidArgument("hsdp_resume: " + what);
}

[[noreturn]] void refuse_missing(std::string const& what) {
  refuse("built without " + what + "; `meson setup` says at its end what was found");
}

int run_on_host(Command const& command) {
  if (command.engine == "threads") {
    return run_on<sm::HostMemory>(sm::threads{command.ranks}, command.job);
  }
  if (command.engine == "environment") {
    return run_on<sm::HostMemory>(sm::environment{}, command.job);
  }
  if (command.engine == "mpi") {
#ifdef EXAMPLE_WITH_MPI
    return run_on<sm::HostMemory>(sm::mpi{}, command.job);
#else
    refuse_missing("MPI");
#endif
  }
  refuse("--engine nccl moves device memory; add --device cuda");
}

int run_on_devices(Command const& command) {
#ifdef EXAMPLE_WITH_CUDA
  if (command.engine == "threads") {
    return run_on<sm::CudaMemory>(sm::threads_on_devices{command.ranks}, command.job);
  }
#endif
#ifdef EXAMPLE_WITH_NCCL
  if (command.engine == "nccl") {
    return run_on<sm::CudaMemory>(sm::nccl_threads{command.ranks}, command.job);
  }
  if (command.engine == "environment") {
    return run_on<sm::CudaMemory>(sm::nccl_environment{}, command.job);
  }
#ifdef EXAMPLE_WITH_MPI
  return run_on<sm::CudaMemory>(sm::nccl_mpi{}, command.job);
#else
  refuse_missing("MPI");
#endif
#endif
  refuse_missing(command.engine == "threads" ? "CUDA" : "NCCL");
}

void add_options(CLI::App& app, Command& command) {
  app.add_option(
         "--engine", command.engine,
         "threads: ranks are threads; nccl: threads with a GPU each; environment: this "
         "process is one rank, started by torchrun, mpirun or srun; mpi: the same, and data "
         "travel by MPI")
      ->check(CLI::IsMember({"threads", "nccl", "environment", "mpi"}))
      ->capture_default_str();
  app.add_option("--ranks", command.ranks, "number of ranks (not with environment and mpi)")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--device", command.device, "where the tensors lie")
      ->check(CLI::IsMember({"host", "cuda"}))
      ->capture_default_str();
  app.add_flag(
      "--blas", command.job.blas,
      "with --device cuda: forward and backward on the device, by cuBLAS. Without, they run "
      "on the host, and every engine trains to the same bits");
  app.add_option("--steps", command.job.steps, "training steps on each mesh")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--checkpoint", command.job.checkpoint, "checkpoint to resume from")
      ->capture_default_str();
  app.add_option("--out", command.job.out, "directory for the checkpoints of this run")
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  Command command;
  command.job.checkpoint = EXAMPLE_DATA "/hsdp_checkpoint";
  command.job.out = std::filesystem::temp_directory_path() /
                    ("shardmesh-hsdp_resume-" + std::to_string(::getuid()));
  command.job.terminal = ::isatty(STDOUT_FILENO) != 0;
  CLI::App app{"Resumes a hybrid-sharded model on four meshes and compares every bit."};
  add_options(app, command);
  try {
    app.parse(argc, argv);
    return command.device == "host" ? run_on_host(command) : run_on_devices(command);
  } catch (CLI::ParseError const& error) {
    return app.exit(error);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
