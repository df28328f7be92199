// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include <shardmesh/comm/sockets.hpp>

namespace shardmesh::inline v0 {

/// The place of a process in its job, as a launcher told it.
struct Environment {
  std::string launcher;  ///< "torchrun", "Open MPI", "MPICH", "Slurm" or "none"
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  int local_size = 1;
  std::string address = "127.0.0.1";  ///< of rank 0
  int port = 29500;
};

namespace detail {

struct LauncherVariables {
  char const* launcher;
  char const* rank;
  char const* size;
  char const* local_rank;
  char const* local_size;
  bool local_size_is_exact;  ///< Slurm tells what was asked for, not what runs
};

inline constexpr LauncherVariables launchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", true},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", true},
    {"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", true},
    {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE", false},
};

/// An integer variable: nothing if it is not set.
/// @throws InvalidArgument if it is no number.
[[nodiscard]] inline std::optional<int> number_in_environment(char const* name) {
  char const* const text = std::getenv(name);
  if (text == nullptr) {
    return std::nullopt;
  }
  char* end = nullptr;
  long const value = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || value < 0 || value > 1'000'000'000) {
    throw InvalidArgument(std::string("shardmesh: the variable ") + name + " is \"" + text +
                          "\", which is no number from 0 to 1000000000; start the program by " +
                          "torchrun, mpirun or srun, or unset it");
  }
  return static_cast<int>(value);
}

[[nodiscard]] inline std::string show_variable(char const* name) {
  char const* const text = std::getenv(name);
  return std::string(name) + (text == nullptr ? " is not set" : std::string("=") + text);
}

}  // namespace detail

/// Reads what torchrun, Open MPI, MPICH or Slurm (in this order) have told this process; without any
/// it is a job of one.
/// @throws InvalidArgument, listing what was found and what is missing, if a set of variables is
///         incomplete or makes no sense.
[[nodiscard]] inline Environment read_environment() {
  Environment found;
  found.launcher = "none";
  for (detail::LauncherVariables const& names : detail::launchers) {
    auto const rank = detail::number_in_environment(names.rank);
    auto const size = detail::number_in_environment(names.size);
    if (!rank && !size) {
      continue;
    }
    if (!rank || !size || *rank >= *size) {
      throw InvalidArgument(std::string("shardmesh: the variables of ") + names.launcher +
                            " are inconsistent: " + detail::show_variable(names.rank) + ", " +
                            detail::show_variable(names.size) +
                            "; both must be set, and the rank be below the size");
    }
    found.launcher = names.launcher;
    found.rank = *rank;
    found.size = *size;
    found.local_rank = detail::number_in_environment(names.local_rank).value_or(*rank);
    found.local_size = detail::number_in_environment(names.local_size).value_or(*size);
    if (names.local_size_is_exact && found.local_rank >= found.local_size) {
      throw InvalidArgument(std::string("shardmesh: the variables of ") + names.launcher +
                            " are inconsistent: " + detail::show_variable(names.local_rank) + ", " +
                            detail::show_variable(names.local_size) +
                            "; the local rank must be below the local size");
    }
    break;
  }
  if (char const* address = std::getenv("MASTER_ADDR")) {
    found.address = address;
  }
  found.port = detail::number_in_environment("MASTER_PORT").value_or(found.port);
  if (found.port < 1 || found.port > 65535) {
    throw InvalidArgument("shardmesh: the variable " + detail::show_variable("MASTER_PORT") +
                          " is no port; give a free one from 1 to 65535");
  }
  return found;
}

/// One rank a process, started by a launcher; tensors in host memory, data over TCP.
struct environment {
  /// How long a rank waits for the others before it gives up.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

/// Runs `body(communicator)` as the rank that the launcher made this process.
/// @throws what the body throws, after telling the other ranks.
template <class Body>
void launch(environment const& options, Body&& body) {
  Environment const place = read_environment();
  SocketCommunicator world(place.address, place.port, place.rank, place.size, options.timeout);
  try {
    body(world);
    world.barrier();
  } catch (std::exception const& error) {
    world.report_failure(error.what());
    throw;
  }
}

}  // namespace shardmesh::inline v0
