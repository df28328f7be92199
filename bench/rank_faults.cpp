// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// rank_faults [ROUNDS]: what the other ranks hear, and after how long, of one that throws, ends, is killed, hangs
// or is only slow; on threads and on processes that talk by sockets. Prints a table for docs/reliability.md; exit 1
// if anything is later than the goal, blames the wrong rank, or is a false alarm.
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <shardmesh/comm/threads.hpp>
#include <shardmesh/comm/working.hpp>
#include <shardmesh/processes.hpp>

namespace sm = shardmesh;

namespace {

using Clock = std::chrono::steady_clock;  // one for all processes of a host
using std::chrono::milliseconds;

constexpr int ranks = 4;
constexpr int failing = 2;
constexpr milliseconds timeout{2000};

/// What the ranks of one round write down; in memory that processes share.
struct Notes {
  std::atomic<std::int64_t> fault{0};                    ///< when it happened
  std::array<std::atomic<std::int64_t>, ranks> heard{};  ///< when a rank was told; 0: never
  std::array<std::atomic<int>, ranks> blamed{};          ///< 1: the right rank
  std::atomic<int> finished{0};                          ///< ranks that have waited
  std::atomic<int> done{0};                              ///< ranks that came to the end
};

std::int64_t now() {
  return Clock::now().time_since_epoch().count();
}

struct Fault {
  char const* name;
  milliseconds goal;  ///< 0: nobody may hear anything
  bool busy_root;     ///< rank 0 computes meanwhile
  std::function<void(sm::Working*)> happens;
  bool works = false;
};

/// One rank of one round.
template <class Comm>
void take_part(Comm const& world, Fault const& fault, Notes& notes) {
  int const rank = world.rank();
  auto const me = static_cast<std::size_t>(rank);
  world.barrier();
  if (rank == failing) {
    if (fault.works) {
      sm::Working work(world, "writes a large file");
      fault.happens(&work);
    } else {
      notes.fault = now();
      fault.happens(nullptr);
    }
  }
  if (rank == 0 && fault.busy_root) {
    while (notes.finished < ranks - 2) {  // the two that wait
      std::this_thread::sleep_for(milliseconds(1));
    }
  }
  try {
    world.barrier();
    notes.done++;
  } catch (std::exception const& error) {
    notes.heard[me] = now();
    std::string const words = error.what();
    notes.blamed[me] = words.find("rank " + std::to_string(failing)) != std::string::npos ? 1 : 0;
    notes.finished++;
    throw;
  }
  notes.finished++;
}

/// Until the others have been told.
void hang(Notes const& notes) {
  while (notes.finished < ranks - 1) {
    std::this_thread::sleep_for(milliseconds(1));
  }
}

void round_on_threads(Fault const& fault, Notes& notes) {
  try {
    sm::launch(sm::threads{ranks, timeout},
               [&](sm::ThreadsCommunicator& world) { take_part(world, fault, notes); });
  } catch (std::exception const&) {  // it was meant to happen
  }
}

void round_on_sockets(Fault const& fault, Notes& notes) {
  static_cast<void>(sm::spawn_processes(
      ranks,
      [&] {
        try {
          sm::launch(sm::environment{timeout},
                     [&](sm::SocketCommunicator& world) { take_part(world, fault, notes); });
        } catch (std::exception const&) {
          return 1;
        }
        return 0;
      },
      5));
}

/// @returns whether all was well.
bool measure(char const* engine,
             Fault const& fault,
             int rounds,
             Notes& notes,
             void (*run)(Fault const&, Notes&)) {
  std::vector<double> times;
  int alarms = 0;
  int wrong = 0;
  int lost = 0;
  for (int round = 0; round < rounds; ++round) {
    new (&notes) Notes;
    run(fault, notes);
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      if (rank == failing || (rank == 0 && fault.busy_root)) {
        continue;
      }
      std::int64_t const heard = notes.heard[rank];
      if (fault.goal.count() == 0) {
        alarms += heard != 0 ? 1 : 0;
      } else if (heard == 0) {
        ++lost;
      } else {
        times.push_back(static_cast<double>(heard - notes.fault) / 1e6);
        wrong += notes.blamed[rank] == 1 ? 0 : 1;
      }
    }
    alarms += fault.goal.count() == 0 && notes.done != ranks ? 1 : 0;
  }
  std::sort(times.begin(), times.end());
  std::string shown = "-";
  bool good = alarms == 0 && wrong == 0 && lost == 0;
  if (!times.empty()) {
    char text[80];
    std::snprintf(text, sizeof(text), "%.1f / %.1f ms", times[times.size() / 2], times.back());
    shown = text;
    good = good && times.back() <= static_cast<double>(fault.goal.count());
  }
  std::string const goal =
      fault.goal.count() == 0 ? "no alarm" : std::to_string(fault.goal.count()) + " ms";
  std::printf("| %s | %s | %d | %s | %s | %d | %s |\n", engine, fault.name, rounds, shown.c_str(),
              goal.c_str(), alarms + wrong + lost, good ? "yes" : "NO");
  std::fflush(stdout);
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  int const rounds = argc > 1 ? std::atoi(argv[1]) : 10;
  void* const shared =
      ::mmap(nullptr, sizeof(Notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED || rounds < 1) {
    std::fprintf(stderr, "rank_faults [ROUNDS]\n");
    return 2;
  }
  Notes& notes = *new (shared) Notes;
  milliseconds const at_once(2000);
  milliseconds const overdue = timeout + milliseconds(1000);
  auto const throws = [](sm::Working*) { throw std::runtime_error("the disk is full"); };
  auto const slow = [](sm::Working*) { std::this_thread::sleep_for(timeout / 2); };
  auto const slow_work = [](sm::Working* work) {
    for (int step = 0; step < 10; ++step) {
      std::this_thread::sleep_for(timeout / 5);
      work->advance();
    }
  };
  auto const spins = [&notes](sm::Working*) { hang(notes); };
  std::vector<Fault> const on_threads = {
      {"throws", milliseconds(50), false, throws},
      {"throws, rank 0 is busy", milliseconds(50), true, throws},
      {"never makes the call", overdue, false, spins},
      {"is slow: half the timeout", milliseconds(0), false, slow},
      {"works for twice the timeout", milliseconds(0), false, slow_work, true},
  };
  std::vector<Fault> const on_sockets = {
      {"throws", at_once, false, throws},
      {"throws, rank 0 is busy", at_once, true, throws},
      {"ends by _Exit(0)", at_once, false, [](sm::Working*) { std::_Exit(0); }},
      {"is killed", at_once, false, [](sm::Working*) { std::raise(SIGKILL); }},
      {"is killed, rank 0 is busy", at_once, true, [](sm::Working*) { std::raise(SIGKILL); }},
      {"is stopped (SIGSTOP)", overdue, false, [](sm::Working*) { std::raise(SIGSTOP); }},
      {"never makes the call", overdue, false, spins},
      {"is slow: half the timeout", milliseconds(0), false, slow},
      {"works for twice the timeout", milliseconds(0), false, slow_work, true},
  };
  utsname host{};
  ::uname(&host);
  std::printf("%d ranks on %u cores (%s), timeout %lld ms; rank %d:\n\n", ranks,
              std::thread::hardware_concurrency(), host.machine,
              static_cast<long long>(timeout.count()), failing);
  std::printf("| engine | rank %d | rounds | others know: median / latest | goal | not told, told "
              "wrongly | met |\n| --- | --- | --- | --- | --- | --- | --- |\n",
              failing);
  bool good = true;
  for (Fault const& fault : on_sockets) {  // before any thread: processes are forked
    good = measure("sockets", fault, rounds, notes, round_on_sockets) && good;
  }
  for (Fault const& fault : on_threads) {
    good = measure("threads", fault, rounds, notes, round_on_threads) && good;
  }
  return good ? 0 : 1;
}
