// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include <shardmesh/comm/detail/slurm.hpp>
#include <shardmesh/comm/limits.hpp>
#include <shardmesh/comm/sockets.hpp>

namespace shardmesh {
inline namespace v0 {

/// The place of a process in its job, as a launcher told it.
struct Environment {
  std::string launcher;  ///< "torchrun", "Open MPI", "MPICH", "Slurm" or "none"
  int rank = 0;
  int size = 1;
  int local_rank = 0;                 ///< among those on this host
  int local_size = 1;                 ///< ranks on this host
  std::string address = "127.0.0.1";  ///< of rank 0
  int port = 29500;                   ///< where rank 0 listens
  bool one_host = true;               ///< the launcher says that all ranks are on this host
};

namespace detail {

struct LauncherVariables {
  char const* launcher;
  char const* rank;
  char const* size;
  char const* local_rank;
  char const* local_size;
  char const* sign;  ///< which variable shows that it was this launcher; null: rank or size
};

/// Who was called last, inside the allocation or the agent of another, stands first. The shells of an
/// allocation of Slurm know its size, but are no tasks of it.
inline constexpr LauncherVariables launchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", nullptr},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", nullptr},
    {"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", nullptr},
    {"Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE",
     "SLURM_STEP_NUM_TASKS"},
    {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_PROCID"},
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

/// How many ranks there are on this host; nothing if the launcher does not say.
[[nodiscard]] inline std::optional<int> local_size_of(LauncherVariables const& names) {
  char const* const list = std::getenv(names.local_size);
  if (list == nullptr || names.local_size != std::string("SLURM_STEP_TASKS_PER_NODE")) {
    return number_in_environment(names.local_size);
  }
  int const node = number_in_environment("SLURM_NODEID").value_or(0);
  auto const tasks = slurm_tasks_on_node(list, node);
  if (!tasks) {
    throw InvalidArgument("shardmesh: the variables of Slurm are inconsistent: " +
                          show_variable(names.local_size) + ", " + show_variable("SLURM_NODEID") +
                          "; the first must list the tasks of each node, as in 4(x2),3");
  }
  return tasks;
}

/// Was this process started by srun itself, whatever the library of its ranks?
[[nodiscard]] inline bool is_slurm_task(Environment const& found) {
  return number_in_environment("SLURM_PROCID") == found.rank &&
         number_in_environment("SLURM_STEP_NUM_TASKS") == found.size;
}

/// Where rank 0 listens: what MASTER_ADDR says; this host if no rank is elsewhere; the first host of
/// a step of Slurm.
/// @throws InvalidArgument if there are several hosts and nobody says which is the first.
[[nodiscard]] inline std::string address_of_rank_0(Environment const& found,
                                                   LauncherVariables const* names) {
  char const* const address = std::getenv("MASTER_ADDR");
  char const* const hosts = std::getenv("SLURM_STEP_NODELIST");
  if (address != nullptr && *address != '\0') {
    return address;
  }
  if (found.local_size == found.size) {
    return "127.0.0.1";
  }
  if (hosts != nullptr && is_slurm_task(found)) {
    return first_slurm_host(hosts);
  }
  throw InvalidArgument("shardmesh: ranks are on several hosts (" + show_variable(names->size) +
                        ", " + show_variable(names->local_size) + "), but " +
                        show_variable("MASTER_ADDR") +
                        "; set it to an address of rank 0's host on all ranks, with mpirun -x "
                        "MASTER_ADDR=host (Open MPI) or -genv MASTER_ADDR host (MPICH)");
}

/// The port of rank 0: what MASTER_PORT says, or one of the job's own.
[[nodiscard]] inline int port_of_rank_0(Environment const& found) {
  auto const given = number_in_environment("MASTER_PORT");
  if (!given) {
    auto const job = number_in_environment("SLURM_JOB_ID");
    auto const step = number_in_environment("SLURM_STEP_ID");
    return job && step && is_slurm_task(found) ? 15'000 + (*job % 1'500) * 10 + *step % 10
                                               : found.port;
  }
  if (*given < 1 || *given > 65535) {
    throw InvalidArgument("shardmesh: the variable " + show_variable("MASTER_PORT") +
                          " is no port; give a free one from 1 to 65535");
  }
  char const* const agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  bool const taken = agent != nullptr && std::string(agent) == "True";  // torchrun listens itself
  // Ports from 32768 on are what the system hands out, and torchrun's own connections may have any.
  constexpr int first_handed_out = 32'768;
  return !taken ? *given
         : *given + 1 < first_handed_out
             ? *given + 1
             : first_handed_out / 2 + (*given + 1) % (first_handed_out / 2);
}

/// All ranks of a launcher's job; they talk by the loopback interface if they are all on one host.
/// @collective
[[nodiscard]] inline SocketCommunicator connect(Environment const& place, Limits limits) {
  return {place.one_host ? "127.0.0.1" : place.address, place.port, place.rank, place.size, limits};
}

}  // namespace detail

/// Reads what torchrun, Open MPI, MPICH or Slurm (in this order) have told this process; without any
/// it is a job of one.
///
/// The address of rank 0 is MASTER_ADDR; without it, this host or the first one of a step of Slurm.
/// The port is MASTER_PORT; under torchrun, which listens on that itself, another that follows from it
/// (the next one, or one that systems do not hand out: 16384 + (p + 1) % 16384 from 32767 on); without it,
/// one that follows from the numbers of job and step of Slurm, or 29500.
/// @throws InvalidArgument, listing what was found and what is missing, if a set of variables is
///         incomplete or makes no sense.
[[nodiscard]] inline Environment read_environment() {
  Environment found;
  found.launcher = "none";
  detail::LauncherVariables const* used = nullptr;
  for (detail::LauncherVariables const& names : detail::launchers) {
    auto const rank = detail::number_in_environment(names.rank);
    auto const size = detail::number_in_environment(names.size);
    if (names.sign != nullptr ? std::getenv(names.sign) == nullptr : !rank && !size) {
      continue;
    }
    auto const require = [&](bool good, char const* one, char const* other, char const* wanted) {
      if (!good) {
        throw InvalidArgument(std::string("shardmesh: the variables of ") + names.launcher +
                              " are inconsistent: " + detail::show_variable(one) + ", " +
                              detail::show_variable(other) + "; " + wanted);
      }
    };
    require(rank && size && *rank < *size, names.rank, names.size,
            "both must be set, and the rank be below the size");
    found.launcher = names.launcher;
    found.rank = *rank;
    found.size = *size;
    found.local_rank = detail::number_in_environment(names.local_rank).value_or(*rank);
    auto const local_size = detail::local_size_of(names);
    found.local_size = local_size.value_or(*size);
    found.one_host = local_size == size || (!local_size && std::getenv("MASTER_ADDR") == nullptr);
    require(found.local_rank < found.local_size, names.local_rank, names.local_size,
            "the local rank must be below the local size");
    used = &names;
    break;
  }
  found.address = detail::address_of_rank_0(found, used);
  found.port = detail::port_of_rank_0(found);
  return found;
}

/// One rank a process, started by a launcher; tensors in host memory, data over TCP.
struct environment {
  /// How long a rank waits for the others before it gives up.
  Limits timeout = {};
};

/// Runs `body(communicator)` as the rank that the launcher made this process.
///
/// Ranks on several hosts must have SHARDMESH_JOB_SECRET set, to the same on all of them; those on one
/// host need not, see `JobSecret`.
/// @throws what the body throws, after telling the other ranks.
template <class Body>
void launch(environment const& options, Body&& body) {
  SocketCommunicator world = detail::connect(read_environment(), options.timeout);
  try {
    body(world);
    world.barrier("end of launch");
  } catch (std::exception const& error) {
    world.report_failure(error.what());
    throw;
  }
}

}  // namespace v0
}  // namespace shardmesh
