// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The engine of MPI processes, started by mpirun on any number of ranks. Rank 0 reports; another rank
// speaks up only if something is wrong there. MPI belongs to this program, as to a host program that
// lends its communicators.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <shardmesh/comm/mpi/communicator.hpp>
#include <shardmesh/comm/mpi/launch.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../comm/ranks.hpp"

namespace engine {

using Space = shardmesh::HostMemory;

template <class Body>
void on_ranks(Body const& body) {
  body(shardmesh::MpiCommunicator::from_native_handle(MPI_COMM_WORLD, test::patience));
}

template <class Body>
void on_even_ranks(Body const& body) {
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (ranks % 2 == 0) {
    on_ranks(body);
  } else {
    MESSAGE("needs an even number of ranks");
  }
}

}  // namespace engine

#include "../support/behaviour_cases.hpp"
#include "../support/checkpoint_disagreements.hpp"
#include "../support/disagreements.hpp"
#include "../support/offload_cases.hpp"
#include "../support/scratch.hpp"
#include "../support/transfer_cases.hpp"

namespace sm = shardmesh;

using sm::MpiCommunicator;
using test::contains;
using test::error_of;
using test::milliseconds;
using Bytes = std::vector<std::byte>;

static_assert(sm::Communicator<MpiCommunicator>);

namespace {

MpiCommunicator adopt(milliseconds timeout = test::patience) {
  return MpiCommunicator::from_native_handle(MPI_COMM_WORLD, timeout);
}

/// A number of its own for each rank and place.
std::byte pattern(int rank, std::size_t i) {
  return static_cast<std::byte>((static_cast<std::size_t>(rank) * 89 + i * 7 + i / 251) % 253);
}

Bytes pattern_of(int rank, std::size_t bytes) {
  Bytes out(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    out[i] = pattern(rank, i);
  }
  return out;
}

/// Memory that this machine could give; 0 if it does not say.
long gigabytes_free() {
  std::ifstream file("/proc/meminfo");
  std::string word;
  long kilobytes = 0;
  while (file >> word && word != "MemAvailable:") {
  }
  file >> kilobytes;
  return kilobytes / 1'000'000;
}

/// What the body throws on this rank when it is launched.
template <class E, class Body>
std::string error_of_launch(milliseconds timeout, Body body) {
  std::string const error = error_of<E>([&] { sm::launch(sm::mpi{timeout}, body); });
  MPI_Barrier(MPI_COMM_WORLD);  // the host program goes on
  return error;
}

/// As test::in_time; every rank tries again as long as one of them has to.
template <class Attempt>
std::string in_time(milliseconds first, Attempt attempt) {
  return test::in_time(first, [&](milliseconds timeout) {
    std::string const wrong = attempt(timeout);
    int const mine = wrong.empty() ? 0 : 1;
    int any = 0;
    MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return any == 1 && wrong.empty() ? std::string("another rank was not in time") : wrong;
  });
}

}  // namespace

TEST_SUITE_BEGIN("mpi");

TEST_CASE("mpi: rank, size, gathers of any length, barriers") {
  MpiCommunicator const world = adopt();
  int rank = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  CHECK(world.rank() == rank);
  CHECK(world.timeout() == test::patience);
  CHECK(!MpiCommunicator());
  CHECK(MpiCommunicator().size() == 0);
  for (int round = 0; round < 50; ++round) {
    auto const all = sm::all_gather_value(world, 1000 * round + world.rank());
    REQUIRE(all.size() == static_cast<std::size_t>(world.size()));
    for (int peer = 0; peer < world.size(); ++peer) {
      CHECK(all[static_cast<std::size_t>(peer)] == 1000 * round + peer);
    }
    world.barrier();
  }
  // Around the length that fits the first message, and far beyond what MPI buffers.
  for (std::size_t const bytes : {0U, 1U, 1007U, 1008U, 1009U, 70'000U, 3'000'000U}) {
    auto const mine = pattern_of(world.rank(), bytes + static_cast<std::size_t>(world.rank()));
    auto const all = world.all_gather(mine);
    for (int peer = 0; peer < world.size(); ++peer) {
      CHECK(all[static_cast<std::size_t>(peer)] ==
            pattern_of(peer, bytes + static_cast<std::size_t>(peer)));
    }
  }
  // One rank alone has something to say.
  auto const texts =
      sm::all_gather_text(world, std::string(world.rank() == world.size() - 1 ? 100'000 : 0, 'x'));
  CHECK(texts.back() == std::string(100'000, 'x'));
  CHECK((world.size() == 1 || texts.front().empty()));
}

TEST_CASE("mpi: exchange of messages of many sizes, none and to oneself included") {
  MpiCommunicator const world = adopt();
  CHECK(test::exchange_all_pairs(world, {1, 0, 7, 4096, 10'003, 0, 300'000}) == "");
  CHECK(test::exchange_all_pairs(world, {}) == "");
  std::vector<sm::Message> sends;
  std::vector<sm::Message> receives;
  for (int peer = 0; peer < world.size(); ++peer) {
    sends.push_back({peer, nullptr, 0});
    receives.push_back({peer, nullptr, 0});
  }
  world.exchange<sm::HostMemory>(sends, receives);
}

TEST_CASE("mpi: splits at any size, in halves down to one") {
  MpiCommunicator const world = adopt();
  MpiCommunicator const reversed = world.split(0, -world.rank());
  CHECK(reversed.rank() == world.size() - 1 - world.rank());
  CHECK(sm::all_gather_value(reversed, world.rank()) == reversed.world_ranks());
  MpiCommunicator const none = world.split(-1, 0);
  CHECK(!none);
  MpiCommunicator group = world;
  while (group.size() > 1) {
    int const half = (group.size() + 1) / 2;
    group = group.split(group.rank() / half, group.rank());
    CHECK(sm::all_gather_value(group, world.rank()) == group.world_ranks());
    CHECK(test::exchange_all_pairs(group, {5, 2000}) == "");
  }
  CHECK(group.world_ranks() == std::vector<int>{world.rank()});
  if (world.size() == 6) {
    CHECK(test::splits_of_six(world) == "");
  }
}

TEST_CASE("mpi: many groups that overlap do not hear each other's messages") {
  MpiCommunicator const world = adopt();
  std::vector<MpiCommunicator> groups;
  for (int stride = 1; stride <= world.size(); ++stride) {
    groups.push_back(world.split(world.rank() % stride, world.rank()));
  }
  for (int round = 0; round < 20; ++round) {
    for (std::size_t g = groups.size(); g-- > 0;) {
      auto const all =
          sm::all_gather_value(groups[g], world.rank() + 100 * static_cast<int>(g) + round);
      for (std::size_t peer = 0; peer < all.size(); ++peer) {
        CHECK(all[peer] == groups[g].world_ranks()[peer] + 100 * static_cast<int>(g) + round);
      }
    }
  }
}

TEST_CASE("mpi: threads of a rank may use groups of their own at the same time") {
  int level = 0;
  MPI_Query_thread(&level);
  REQUIRE(level >= MPI_THREAD_SERIALIZED);
  MpiCommunicator const world = adopt();
  std::vector<MpiCommunicator> const groups{world.split(0, 0), world.split(0, -world.rank())};
  std::vector<std::string> problems(2);
  std::vector<std::jthread> threads;
  for (std::size_t g = 0; g < 2; ++g) {
    threads.emplace_back([&, g] {
      for (int round = 0; round < 30 && problems[g].empty(); ++round) {
        problems[g] = test::exchange_all_pairs(groups[g], {3, 5000, 100'000});
      }
    });
  }
  threads.clear();
  CHECK(problems == std::vector<std::string>(2));
}

TEST_CASE("mpi: a communicator of the host program keeps its messages to itself") {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm half = MPI_COMM_NULL;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &half);
  {
    // A message of the host that any receive on its communicator would take.
    int const note = 4711 + rank;
    int heard = 0;
    MPI_Request request = MPI_REQUEST_NULL;
    int half_rank = 0;
    int half_size = 0;
    MPI_Comm_rank(half, &half_rank);
    MPI_Comm_size(half, &half_size);
    MPI_Isend(&note, 1, MPI_INT, (half_rank + 1) % half_size, 1, half, &request);
    auto const group = MpiCommunicator::from_native_handle(half);
    CHECK(group.size() == half_size);
    CHECK(group.rank() == half_rank);
    CHECK(group.timeout() == std::chrono::seconds(60));
    auto const all = sm::all_gather_value(group, rank);
    for (std::size_t i = 1; i < all.size(); ++i) {
      CHECK(all[i] == all[i - 1] - 2);
    }
    MPI_Recv(&heard, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, half, MPI_STATUS_IGNORE);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    CHECK(heard == 4711 + all[static_cast<std::size_t>((half_rank + half_size - 1) % half_size)]);
  }
  // Still the host's own, errors and all.
  MPI_Barrier(half);
  MPI_Comm_free(&half);
}

TEST_CASE("mpi: what is no communicator of this job is refused") {
  CHECK(error_of<sm::InvalidArgument>([] {
          static_cast<void>(MpiCommunicator::from_native_handle(MPI_COMM_NULL));
        }) == "shardmesh::MpiCommunicator: MPI_COMM_NULL has no ranks; only members of a "
              "communicator can adopt it");
}

TEST_CASE("B10 offload equivalence: 500 random tensors") {
  engine::on_ranks([](auto const& world) {
    CHECK(test::b10_offload_equivalence<sm::HostMemory>(world, 5, 500) == "");
  });
}

TEST_CASE("mpi: the redistribute matrix") {
  MpiCommunicator const world = adopt();
  auto const report = test::run_matrix<sm::HostMemory>(world, 31, world.size() > 3 ? 7 : 2);
  CHECK(report.cases > 30);
  CHECK(report.wrong == 0);
  CHECK(report.first_wrong == "");
}

TEST_CASE("mpi: transfers between meshes") {
  auto const report = test::run_transfers<sm::HostMemory>(adopt(), 17, 8, 200);
  CHECK(report.cases == 200);
  CHECK(report.first_wrong == "");
}

TEST_CASE("mpi: a launch in a program that has initialised MPI leaves MPI running") {
  int calls = 0;
  sm::launch(sm::mpi{}, [&calls](MpiCommunicator& world) { calls += world.size(); });
  int size = 0;
  int over = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Finalized(&over);
  CHECK(calls == size);
  CHECK(over == 0);
}

TEST_CASE("mpi: what is thrown need not be a std::exception") {
  CHECK_THROWS_AS(sm::launch(sm::mpi{}, [](MpiCommunicator&) { throw 42; }), int);
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("mpi.several");

TEST_CASE("mpi: an inter-communicator is refused") {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm between = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, rank == 0 ? 0 : 1, rank, &half);
  MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, rank == 0 ? 1 : 0, 7, &between);
  CHECK(contains(error_of<sm::InvalidArgument>([between] {
                   static_cast<void>(MpiCommunicator::from_native_handle(between));
                 }),
                 "merge them with MPI_Intercomm_merge first"));
  MPI_Comm_free(&between);
  MPI_Comm_free(&half);
}

TEST_CASE("mpi: a message of more parts than one arrives whole") {
  MpiCommunicator const world = adopt();
  std::size_t const bytes = 2 * sm::detail::MpiTraffic::most_bytes + 5;
  std::vector<sm::Message> sends;
  std::vector<sm::Message> receives;
  Bytes out;
  Bytes in;
  if (world.rank() == 0) {
    out = pattern_of(0, bytes);
    sends.push_back({1, out.data(), bytes});
  } else if (world.rank() == 1) {
    in.resize(bytes);
    receives.push_back({0, in.data(), bytes});
  }
  world.exchange<sm::HostMemory>(sends, receives);
  CHECK((world.rank() != 1 || in == pattern_of(0, bytes)));
}

TEST_CASE("mpi: a message of more bytes than an int counts arrives whole") {
  MpiCommunicator const world = adopt();
  std::size_t const words = (std::size_t{1} << 28) + 3;
  int const room = gigabytes_free() >= 8 && world.size() == 2 ? 1 : 0;
  for (int const enough : sm::all_gather_value(world, room)) {
    if (enough == 0) {
      MESSAGE("left out: needs 2 ranks and 8 GB of free memory");
      return;
    }
  }
  std::vector<std::uint64_t> data(words);
  if (world.rank() == 0) {
    std::iota(data.begin(), data.end(), std::uint64_t{7});
  }
  sm::Message message{1 - world.rank(), data.data(), words * sizeof(std::uint64_t)};
  world.exchange<sm::HostMemory>({&message, world.rank() == 0 ? 1U : 0U},
                                 {&message, world.rank() == 0 ? 0U : 1U});
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < words; ++i) {
    wrong += data[i] == i + 7 ? 0U : 1U;
  }
  CHECK(wrong == 0);
}

TEST_CASE("mpi: messages that do not match give every rank an error that names both") {
  MpiCommunicator const world = adopt();
  auto const error = [&](int sent, int expected) {
    std::string const text =
        error_of<sm::MismatchError>([&] { test::exchange_sizes(world, sent, expected); });
    world.barrier();  // the group is still good: nothing was half done
    return text;
  };
  CHECK(error(8, 8) == "no error");
  CHECK(error(8, 12) ==
        "shardmesh::exchange: rank 1 expects 12 bytes from rank 0, which sends 8 bytes");
  CHECK(error(-1, 12) ==
        "shardmesh::exchange: rank 1 expects 12 bytes from rank 0, which sends nothing");
  CHECK(error(8, -1) ==
        "shardmesh::exchange: rank 0 sends 8 bytes to rank 1, which does not expect them");
  // The floats and doubles for which MPI_Allreduce returns other numbers on each rank.
  CHECK(error(4, 8) == "shardmesh::exchange: rank 1 expects 8 bytes from rank 0, which sends 4 "
                       "bytes");
  std::byte byte{};
  sm::Message const nobody{world.size(), &byte, 1};
  CHECK(contains(error_of<sm::MismatchError>([&] {
                   world.exchange<sm::HostMemory>({&nobody, world.rank() == 0 ? 1U : 0U}, {});
                 }),
                 "rank 0 has a message for rank " + std::to_string(world.size())));
}

TEST_CASE("mpi: ranks that make different calls get an error that names both") {
  MpiCommunicator const world = adopt();
  CHECK(error_of<sm::MismatchError>([&] {
          if (world.rank() == 1) {
            static_cast<void>(sm::all_gather_value(world, 1));
          } else {
            world.barrier();
          }
        }) == "shardmesh: ranks made different calls: rank 0 is in barrier, rank 1 is in "
              "all_gather_value; every rank must make the same calls");
  CHECK(contains(error_of<sm::MismatchError>([&] {
                   if (world.rank() == 1) {
                     static_cast<void>(world.split(0, 0));
                   } else {
                     world.exchange<sm::HostMemory>({}, {});
                   }
                 }),
                 "rank 0 is in exchange, rank 1 is in split"));
  CHECK(sm::all_gather_value(world, 5) ==
        std::vector<int>(static_cast<std::size_t>(world.size()), 5));
}

TEST_CASE("mpi: a rank that throws is named to all others, with its words") {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (int failing : {0, size - 1}) {
    std::string heard;
    std::string const error =
        error_of_launch<std::runtime_error>(test::patience, [&](MpiCommunicator& world) {
          MpiCommunicator const group = world.split(0, 0);
          if (world.rank() == failing) {
            group.barrier();
            throw std::runtime_error("the disk is full");
          }
          try {
            group.barrier();  // who is late here may hear of it before it is over
            group.barrier();
          } catch (sm::RankFailed const& failed) {
            CHECK(failed.rank() == failing);
            heard = failed.what();
          }
          // Whoever goes on regardless hears it again.
          CHECK(error_of<sm::RankFailed>([&] { world.barrier(); }) == heard);
          static_cast<void>(world.split(0, 0));
        });
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    CHECK(error == (rank == failing ? "the disk is full"
                                    : "shardmesh: rank " + std::to_string(failing) +
                                          " failed: the disk is full"));
    CHECK((rank == failing || heard == error));
  }
}

TEST_CASE("mpi: a rank that has told of its failure takes no part any more") {
  MpiCommunicator const world = adopt();
  int const last = world.size() - 1;
  if (world.rank() == last) {
    world.report_failure("out of paper" + std::string(5000, '.'));
    CHECK(contains(error_of<sm::CommError>([&] { world.barrier(); }),
                   "this rank has told the others that it failed: out of paper"));
    world.report_failure("told only once");
  } else {
    std::string const error = error_of<sm::RankFailed>([&] { world.barrier(); });
    CHECK(contains(error, "rank " + std::to_string(last) + " failed: out of paper..."));
    CHECK(error.size() < 2100);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("mpi: a rank that does not arrive is named when the time is over") {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  int const last = size - 1;
  CHECK(in_time(milliseconds(300), [last](milliseconds timeout) {
          std::string const named = "rank " + std::to_string(last) + " did not arrive within " +
                                    std::to_string(timeout.count()) +
                                    " ms; look at "
                                    "what it waits for, or raise the timeout of the launch";
          std::string first;
          std::string const error =
              error_of_launch<sm::CommError>(timeout, [&](MpiCommunicator& world) {
                if (world.rank() == last) {
                  std::this_thread::sleep_for(3 * timeout);
                } else {
                  first = error_of<sm::CommError>([&] { world.barrier(); });
                }
                world.barrier();  // fails again; for the last rank it is the first time
              });
          // Another rank may have been quicker to say so.
          bool const good = contains(error, "shardmesh::barrier: " + named) &&
                            (first.empty() || contains(first, named));
          return good ? std::string() : first + "; " + error;
        }) == "");
}

TEST_CASE("mpi: in a group the missing rank is named by its number in the job") {
  CHECK(in_time(milliseconds(300), [](milliseconds timeout) {
          std::string error;
          std::string const other = error_of<sm::CommError>([&] {
            MpiCommunicator const world = adopt(timeout);
            int const last = world.size() - 1;
            MpiCommunicator const group =
                world.split(world.rank() == 0 || world.rank() == last ? 0 : 1, -world.rank());
            if (world.rank() == 0) {
              error = error_of<sm::TimeoutError>([&] { group.barrier(); });
              bool const named = contains(error, "shardmesh::barrier: rank " +
                                                     std::to_string(last) + " did not arrive");
              error = named ? "" : error;
            }
          });
          MPI_Barrier(MPI_COMM_WORLD);
          return other == "no error" ? error : error + "; " + other;
        }) == "");
}

TEST_CASE("mpi: ranks that do not adopt a communicator together are given up") {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm own = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &own);
  if (rank == 0) {
    CHECK(error_of<sm::TimeoutError>([own] {
            static_cast<void>(MpiCommunicator::from_native_handle(own, milliseconds(200)));
          }) == "shardmesh::MpiCommunicator: not all ranks of the communicator arrived within 200 "
                "ms; adopting one is collective over its ranks");
  }
  MPI_Barrier(MPI_COMM_WORLD);
  // The host's communicator is left with half a duplication, so nobody frees it.
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("mpi.disagreements");

TEST_CASE("mpi: ranks that do not do the same all get an error that names both sides") {
  MpiCommunicator const world = adopt();
  auto const actions = test::all_actions<MpiCommunicator>();
  bool const last = world.rank() + 1 == world.size();
  int pairs = 0;
  for (std::size_t a = 0; a < actions.size(); ++a) {
    for (std::size_t b = 0; b < actions.size(); ++b) {
      if (a != b) {
        ++pairs;
        std::string const fault = test::fault_of(actions[last ? b : a], world);
        REQUIRE_MESSAGE(fault.empty(),
                        actions[a].name << " against " << actions[b].name << ": " << fault);
      }
    }
  }
  MESSAGE(pairs << " disagreements of " << world.size() << " processes of MPI");
  CHECK(pairs > 900);
}

TEST_CASE("mpi: ranks that do not save or load the same are told which") {
  MpiCommunicator const world = adopt();
  test::Scratch const scratch;
  std::string const folder = sm::all_gather_text(world, scratch / "")[0];
  std::size_t pairs = 0;
  REQUIRE(test::fault_of_checkpoints(world, folder, pairs) == "");
  MESSAGE(pairs << " disagreements of " << world.size() << " processes of MPI over checkpoints");
  CHECK(pairs == 110);
  CHECK_FALSE(sm::PosixStorage::exists(folder + "/a"));
  world.barrier();  // the folder is rank 0's
}

TEST_CASE("mpi: ranks that do the same are not taken for different ones") {
  std::size_t const calls = test::agreeing_calls(2'000);
  CHECK(test::false_alarm(MpiCommunicator::from_native_handle(MPI_COMM_WORLD), calls) == "");
  MESSAGE(calls << " calls that agree");
}

TEST_CASE("mpi: a call that one rank leaves out ends in an error on all, not in a wrong value") {
  auto const actions = test::all_actions<MpiCommunicator>();
  for (auto const& action : actions) {
    std::string const what =
        error_of_launch<sm::Error>(test::patience, [&action](MpiCommunicator& world) {
          test::DisagreementWorld<MpiCommunicator> const all(world);
          if (world.rank() > 0) {
            action.run(all);
          }
        });
    CAPTURE(action.name);
    // The rank that leaves it out comes to the end of the launch, or hears it from another one.
    CHECK(test::contains(what, "rank 0 is in end of launch"));
    CHECK(test::contains(what, ", rank 1 is in "));
  }
  MESSAGE(actions.size() << " calls that one of the processes leaves out");
}

TEST_SUITE_END();

int main(int argc, char** argv) {
  int level = 0;
  int rank = 0;
  int size = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  doctest::Context context(argc, argv);
  if (size == 1) {
    context.addFilter("test-suite-exclude", "mpi.several,mpi.disagreements");
  }
  context.setOption("no-colors", true);  // mpirun's pipes look like terminals
  std::ostringstream output;
  if (rank != 0) {
    context.setCout(&output);
  }
  int const status = context.run();
  if (rank != 0 && status != 0) {
    std::fprintf(stderr, "rank %d:\n%s\n", rank, output.str().c_str());
  }
  MPI_Finalize();
  return status;
}
