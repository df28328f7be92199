// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What launch.py starts under mpirun: `program DEED TIMEOUT_MS`. The last rank does the deed when the
// ranks have met; the others say what they hear of it. `alone-...`: with an MPI that takes calls from
// one thread only.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>

#include <unistd.h>

#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/working.hpp>
#include <shardmesh/mpi.hpp>

namespace sm = shardmesh;

namespace {

int rank_for_messages = -1;

template <class Comm>
void do_deed(Comm const& world, std::string const& deed, std::chrono::milliseconds timeout) {
  if (deed == "work") {
    sm::Working const work(world, "works");
    std::this_thread::sleep_for(3 * timeout);
  }
  if (deed == "stop") {
    std::raise(SIGSTOP);
  }
  if (deed == "work-stop") {  // others have heard of the work before they hear nothing more
    sm::Working const work(world, "writes its part");
    std::this_thread::sleep_for(2 * timeout);
    std::raise(SIGSTOP);
  }
  if (deed == "throw") {
    throw std::runtime_error("the disk is full");
  }
  if (deed == "kill") {
    std::raise(SIGKILL);
  }
  while (deed == "hang") {
    ::pause();
  }
}

/// Two gathers with the deed in between.
template <class Comm>
void meet(Comm const& world, std::string const& deed, std::chrono::milliseconds timeout) {
  rank_for_messages = world.rank();
  auto const all = sm::all_gather_value(world, world.rank() + 1);
  if (world.rank() == world.size() - 1) {
    do_deed(world, deed, timeout);
  }
  world.barrier();
  int sum = 0;
  for (int one : all) {
    sum += one;
  }
  std::printf("rank %d of %d: sum %d\n", world.rank(), world.size(), sum);
  std::fflush(stdout);
}

/// The first of three ranks waits for the second, which waits in another group for the last, which works.
template <class Comm>
void meet_in_a_row(Comm const& world, std::chrono::milliseconds timeout) {
  auto const first_two = world.split(world.rank() < 2 ? 0 : 1, 0);
  auto const last_two = world.split(world.rank() > 0 ? 0 : 1, 0);
  if (world.rank() == 2) {
    sm::Working const work(world, "works");
    std::this_thread::sleep_for(3 * timeout);
  }
  last_two.barrier();
  first_two.barrier();
  meet(world, "good", timeout);
}

/// A rank that is stopped has no time in which it could make the call: only silence tells.
sm::Limits limits(std::string const& deed, std::chrono::milliseconds timeout) {
  sm::Limits all = timeout;
  if (deed.ends_with("stop")) {
    all.call = std::chrono::hours(1);
  }
  return all;
}

void run(std::string const& deed, std::chrono::milliseconds timeout) {
  if (deed == "environment") {
    sm::Environment const place = sm::read_environment();
    std::printf("%s: %d/%d, local %d/%d\n", place.launcher.c_str(), place.rank, place.size,
                place.local_rank, place.local_size);
    sm::launch(sm::environment{timeout}, [&](auto& world) { meet(world, deed, timeout); });
    return;
  }
  sm::MpiCommunicator left_over;  // outlives MPI
  sm::launch(sm::mpi{limits(deed, timeout)}, [&](auto& world) {
    if (deed == "relay") {
      meet_in_a_row(world, timeout);
    } else {
      meet(world, deed, timeout);
    }
    left_over = world.split(0, 0);
  });
  if (deed == "again") {
    sm::launch(sm::mpi{timeout}, [](auto&) {});
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr,
                 "program [alone-]good|again|throw|kill|hang|stop|work|work-stop|relay|environment "
                 "TIMEOUT_MS\n");
    return 2;
  }
  std::string deed = argv[1];
  bool const alone = deed.starts_with("alone-");
  if (alone) {
    deed.erase(0, 6);
    int level = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SINGLE, &level);
  }
  try {
    run(deed, std::chrono::milliseconds(std::atoi(argv[2])));
    if (alone) {
      MPI_Finalize();
    }
  } catch (std::exception const& error) {
    std::fprintf(stderr, "rank %d ends: %s\n", rank_for_messages, error.what());
    return 1;
  }
  return 0;
}
