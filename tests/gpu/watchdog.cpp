// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What NCCL ranks see when others die, fail or do not come: watchdog, family and operation log on a
// stand-in for NCCL, so that no GPU is needed.
#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <csignal>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/collectives.hpp>
#include <shardmesh/comm/nccl/beat.hpp>
#include <shardmesh/comm/nccl/call_history.hpp>
#include <shardmesh/comm/nccl/call_watch.hpp>
#include <shardmesh/comm/nccl/communicator.hpp>
#include <shardmesh/comm/nccl/family.hpp>
#include <shardmesh/comm/nccl/handle.hpp>
#include <shardmesh/comm/nccl/launch.hpp>
#include <shardmesh/comm/nccl/operation_log.hpp>
#include <shardmesh/comm/nccl/watchdog.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/core/counters.hpp>

#include "../comm/ranks.hpp"
#include "fake_nccl.hpp"

namespace sm = shardmesh;

using sm::nccl::Beat;
using test::contains;
using test::milliseconds;
using test::Texts;
using ThreadWorld = sm::NcclCommunicator<sm::ThreadsCommunicator>;
using SocketWorld = sm::NcclCommunicator<sm::SocketCommunicator>;

static_assert(sm::Communicator<ThreadWorld> && sm::Communicator<SocketWorld>);
static_assert(sm::HasAllReduce<ThreadWorld, sm::CudaMemory>);
static_assert(sm::HasReduceScatter<ThreadWorld, sm::CudaMemory>);
static_assert(sm::HasAllGather<SocketWorld, sm::CudaMemory>);
static_assert(sm::HasBroadcast<SocketWorld, sm::CudaMemory>);
static_assert(!sm::HasAllReduce<ThreadWorld, sm::HostMemory>);

namespace {

/// Sets how the stand-in behaves, for one test.
class Behaviour {
 public:
  explicit Behaviour(bool fake::World::* what, bool value) : what_(what), before_(value) {
    std::swap(fake::world().*what_, before_);
  }
  Behaviour(Behaviour const&) = delete;
  Behaviour& operator=(Behaviour const&) = delete;
  ~Behaviour() { fake::world().*what_ = before_; }

 private:
  bool fake::World::* what_;
  bool before_;
};

/// One exchange with the next rank, on the rank's default stream.
template <class World>
void ring(World const& world) {
  int const next = (world.rank() + 1) % world.size();
  int const last = (world.rank() + world.size() - 1) % world.size();
  char bytes[2] = {};
  sm::Message const send{next, &bytes[0], 1};
  sm::Message receive{last, &bytes[1], 1};
  world.template exchange<sm::CudaMemory>({&send, 1}, {&receive, 1});
}

/// Runs `body(world)` on NCCL ranks that are threads; what each rank threw, as text.
template <class Body>
Texts run_ranks(int ranks, milliseconds timeout, Body body) {
  Texts errors(static_cast<std::size_t>(ranks), "no error");
  try {
    sm::launch(sm::nccl_threads{ranks, timeout}, [&](ThreadWorld& world) {
      try {
        body(world);
      } catch (std::exception const& error) {
        errors[static_cast<std::size_t>(world.rank())] = error.what();
        throw;
      }
    });
  } catch (std::exception const&) {  // it is in the list
  }
  return errors;
}

/// Until that throws.
template <class World>
void check_for_ever(World const& world) {
  while (true) {
    std::this_thread::sleep_for(milliseconds(5));
    world.check();
  }
}

/// The first text that does not contain all the words; "" if all do.
std::string first_without(Texts const& texts, std::vector<std::string> const& words) {
  for (std::string const& text : texts) {
    for (std::string const& word : words) {
      if (!contains(text, word)) {
        return text;
      }
    }
  }
  return "";
}

/// Nothing of the stand-in is left, and how often it was aborted.
int aborts_since(int before) {
  CHECK(fake::world().alive.empty());
  return fake::world().aborts - before;
}

}  // namespace

TEST_SUITE_BEGIN("gpu.watchdog");

TEST_CASE("operations that all ranks enter disturb nobody, and events are made once") {
  int const events = fake::world().events_made;
  int const aborts = fake::world().aborts;
  for (int ranks : {1, 2, 3, 5, 8}) {
    CHECK(run_ranks(ranks, test::patience, [](ThreadWorld& world) {
            auto const whole = world.split(0, world.rank());
            for (int i = 0; i < 1000; ++i) {
              ring(world);
              whole.all_reduce(sm::DType::float32, sm::ReduceOp::sum, nullptr, nullptr, 1);
              if (i % 100 == 0) {
                sm::CudaStream{}.synchronize();
              }
            }
            world.check();
            world.barrier();
          }) == Texts(static_cast<std::size_t>(ranks), "no error"));
  }
  CHECK(aborts_since(aborts) == 0);
  // A log holds at most 256 records; there were two logs for each of 19 ranks.
  CHECK(fake::world().events_made - events <= 19 * 2 * 256);
}

TEST_CASE("what ranks do is counted, and their watchdogs' meetings are not") {
  std::barrier<> together(2);
  CHECK(run_ranks(2, test::patience, [&together](ThreadWorld& world) {
          together.arrive_and_wait();
          sm::Counters const before = sm::counters();
          together.arrive_and_wait();
          ring(world);
          std::this_thread::sleep_for(milliseconds(700));  // watchdogs meet several times a second
          ring(world);
          world.barrier();
          together.arrive_and_wait();
          sm::Counters const done = sm::counters() - before;
          CHECK(done.collectives == 2 * 3);
          CHECK(done.process_bytes == 2 * 2);
          together.arrive_and_wait();
        }) == test::Texts(2, "no error"));
}

TEST_CASE("a rank that does not come is named, with the operation, and wakes the device") {
  for (bool blocks : {false, true}) {  // inside NCCL on the host, or on the device
    Behaviour const behaviour(&fake::World::connecting_blocks, blocks);
    int const aborts = fake::world().aborts;
    CHECK(test::in_time(milliseconds(400), [](milliseconds timeout) {
            return first_without(
                run_ranks(3, timeout,
                          [](ThreadWorld& world) {
                            ring(world);
                            if (world.rank() == 2) {
                              check_for_ever(world);  // busy with something else
                            }
                            ring(world);
                            sm::CudaStream{}.synchronize();
                            world.barrier();
                          }),
                {"shardmesh::exchange: operation 2 of the group of ranks 0, 1, 2",
                 "within " + std::to_string(timeout.count()) + " ms: rank 2 did not arrive"});
          }) == "");
    CHECK(aborts_since(aborts) > 0);
  }
}

TEST_CASE("an operation that all ranks entered and that does not end says so") {
  Behaviour const behaviour(&fake::World::completes, false);
  CHECK(test::in_time(milliseconds(300), [](milliseconds timeout) {
          return first_without(run_ranks(2, timeout,
                                         [](ThreadWorld& world) {
                                           world.all_gather(sm::DType::int16, nullptr, nullptr, 8);
                                           sm::CudaStream{}.synchronize();
                                           world.barrier();
                                         }),
                               {"shardmesh::all_gather: operation 1 of the group of ranks 0, 1",
                                "all ranks arrived; look at the links"});
        }) == "");
}

TEST_CASE("a rank that throws ends the others' waiting at once, with its words") {
  for (int failing : {0, 2}) {
    auto const errors = run_ranks(4, test::patience, [failing](ThreadWorld& world) {
      ring(world);
      if (world.rank() == failing) {
        throw std::runtime_error("the loss is NaN");
      }
      ring(world);
      sm::CudaStream{}.synchronize();
      ring(world);
    });
    std::string const who = "rank " + std::to_string(failing) + " failed: the loss is NaN";
    for (std::size_t rank = 0; rank < errors.size(); ++rank) {
      INFO(errors[rank]);
      CHECK((rank == static_cast<std::size_t>(failing) ? errors[rank] == "the loss is NaN"
                                                       : contains(errors[rank], who)));
    }
    CHECK(fake::world().alive.empty());
  }
}

TEST_CASE("the group of an operation is the group that is named") {
  CHECK(test::in_time(milliseconds(400), [](milliseconds timeout) {
          auto const errors = run_ranks(4, timeout, [](ThreadWorld& world) {
            auto const all = world.split(0, world.rank());
            auto const again = all.split(0, world.rank());
            ring(again);
            if (world.rank() == 1) {
              ring(all);
              sm::CudaStream{}.synchronize();
              return;
            }
            check_for_ever(world);
          });
          return first_without({errors[3]},
                               {"exchange: operation 3 of the group of ranks 0, 1, 2, 3",
                                "rank 0, 2, 3 did not arrive"});
        }) == "");
}

TEST_CASE("an error that NCCL reports reaches every rank") {
  Behaviour const error(&fake::World::reports_error, true);
  CHECK(
      first_without(run_ranks(3, test::patience, [](ThreadWorld& world) { check_for_ever(world); }),
                    {"failed: NCCL reports: remote process exited"}) == "");
  CHECK(fake::world().alive.empty());
}

TEST_CASE("a communicator of the host program stays the host program's") {
  for (int blocking : {0, 1}) {
    int const aborts = fake::world().aborts;
    CHECK(test::run_sockets(3, test::patience, [blocking](auto const& control) {
            ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
            config.blocking = blocking;
            ncclUniqueId id{};
            id.internal[0] = blocking == 0 ? 'n' : 'b';
            ncclComm_t comm = nullptr;
            sm::nccl::check(ncclCommInitRankConfig(&comm, 3, id, control.rank(), &config), "init");
            cudaStream_t stream = nullptr;
            cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
            {
              auto const world = SocketWorld::from_native_handle(comm, control, test::patience);
              CHECK(world.native_handle() == comm);
              ring(world);
              world.all_reduce(sm::DType::bfloat16, sm::ReduceOp::avg, nullptr, nullptr, 3,
                               sm::CudaStream{stream});
              auto const part = world.split(0, world.rank());
              CHECK(part.native_handle() != comm);
              ring(part);
              sm::CudaStream{}.synchronize();
              sm::CudaStream{stream}.synchronize();
            }
            CHECK(fake::world().alive.count(comm) == 1);
            cudaStreamDestroy(stream);
            ncclCommDestroy(comm);
          }) == Texts(3, "no error"));
    CHECK(aborts_since(aborts) == 0);
  }
}

TEST_CASE("reductions that NCCL does not have are refused with a sentence") {
  auto const errors = run_ranks(1, test::patience, [](ThreadWorld& world) {
    for (sm::DTypeInfo const& info : sm::dtype_table) {
      bool const known = sm::nccl::data_type(info.dtype).has_value();
      std::string const what = test::error_of<sm::UnsupportedError>([&] {
        world.all_reduce(info.dtype, sm::ReduceOp::max, nullptr, nullptr, 1);
        world.reduce_scatter(info.dtype, sm::ReduceOp::max, nullptr, nullptr, 1);
      });
      CHECK((known || contains(what, "NCCL does not reduce " + std::string(info.name) +
                                         "; convert the elements, or use redistribute")));
      world.all_gather(info.dtype, nullptr, nullptr, 1);  // everything travels
      world.broadcast(info.dtype, nullptr, nullptr, 1, 0);
    }
    CHECK(contains(test::error_of<sm::InvalidArgument>(
                       [&] { world.broadcast(sm::DType::int8, nullptr, nullptr, 1, 1); }),
                   "root 1 is no rank of a group of 1; give one from 0 to 0"));
  });
  CHECK(errors == Texts{"no error"});
}

/// A call of the tests: `unit` is its only argument.
void exchange_unit(ThreadWorld const& world, std::string const& unit) {
  auto const words = [&unit] { return "unit " + unit; };
  sm::Call const call("unshard", sm::Fingerprint().add(unit), words);
  world.exchange<sm::CudaMemory>({}, {}, {}, call);
}

/// Works until the watchdog has heard of a failure.
void wait_for_failure(ThreadWorld const& world) {
  for (int i = 0; i < 100'000; ++i) {
    world.check();
    std::this_thread::sleep_for(milliseconds(1));
  }
}

TEST_CASE("ranks that make different calls get an error that names both sides, at once") {
  using Body = std::function<void(ThreadWorld const&)>;
  auto const reduce = [](sm::DType dtype, sm::ReduceOp op, std::size_t count) -> Body {
    return [=](ThreadWorld const& world) { world.all_reduce(dtype, op, nullptr, nullptr, count); };
  };
  using sm::DType;
  using sm::ReduceOp;
  std::vector<std::pair<Body, std::string>> const calls{
      {[](ThreadWorld const& world) { exchange_unit(world, "a"); }, "unit a"},
      {[](ThreadWorld const& world) { exchange_unit(world, "b"); }, "unit b"},
      {reduce(DType::float32, ReduceOp::sum, 4), "4 elements of float32, sum"},
      {reduce(DType::int32, ReduceOp::sum, 4), "4 elements of int32, sum"},
      {reduce(DType::float32, ReduceOp::max, 4), "4 elements of float32, max"},
      {reduce(DType::float32, ReduceOp::sum, 8), "8 elements of float32, sum"},
      {[](ThreadWorld const& world) { world.broadcast(DType::float32, nullptr, nullptr, 4, 0); },
       "4 elements of float32, from rank 0"},
      {[](ThreadWorld const& world) { world.broadcast(DType::float32, nullptr, nullptr, 4, 1); },
       "4 elements of float32, from rank 1"},
      {[](ThreadWorld const& world) { world.barrier(); }, "barrier"},
      {[](ThreadWorld const& world) { static_cast<void>(world.split(0, world.rank())); }, "split"}};
  int pairs = 0;
  for (int ranks : {2, 3}) {
    for (std::size_t a = 0; a < calls.size(); ++a) {
      for (std::size_t b = 0; b < calls.size(); ++b) {
        if (ranks == 2 ? a >= b : a <= b || (a + b) % 3 != 0) {
          continue;
        }
        ++pairs;
        auto const errors = run_ranks(ranks, test::patience, [&](ThreadWorld& world) {
          exchange_unit(world, "first");
          calls[world.rank() + 1 == ranks ? b : a].first(world);
          wait_for_failure(world);
        });
        for (std::string const& error : errors) {
          CHECK_MESSAGE(contains(error, calls[a].second), error);
          CHECK_MESSAGE(contains(error, calls[b].second), error);
          CHECK_MESSAGE(contains(error, "rank 0 "), error);
        }
      }
    }
  }
  CHECK(pairs >= 60);
}

TEST_CASE("a rank that waits on the host hears of it while the others still clean up") {
  std::atomic<bool> heard = false;
  std::atomic<bool> in_vain = false;
  Texts const errors = run_ranks(3, milliseconds(30'000), [&](ThreadWorld& world) {
    try {
      if (world.rank() == 0) {
        world.barrier();
      } else {
        exchange_unit(world, "a");
      }
      wait_for_failure(world);
    } catch (sm::MismatchError const&) {
      heard = heard || world.rank() == 0;
      for (int i = 0; i < 15'000 && !heard; ++i) {  // cleaning up may take long, in NCCL too
        std::this_thread::sleep_for(milliseconds(1));
      }
      in_vain = in_vain || !heard;
      throw;
    }
  });
  CHECK_FALSE(in_vain);
  for (std::string const& error : errors) {
    CHECK_MESSAGE(contains(error, "rank 0 is in barrier, rank 1 is in unshard (unit a)"), error);
  }
}

TEST_CASE("calls in another order, long after the start, are found") {
  for (std::string const& error : run_ranks(3, test::patience, [](ThreadWorld& world) {
         for (int i = 0; i < 3000; ++i) {
           exchange_unit(world, std::to_string(i % 7));
         }
         bool const last = world.rank() == 2;
         exchange_unit(world, last ? "y" : "x");
         exchange_unit(world, last ? "x" : "y");
         for (int i = 0; i < 500; ++i) {
           exchange_unit(world, "z");
         }
         wait_for_failure(world);
       })) {
    CHECK_MESSAGE(contains(error,
                           "shardmesh::unshard: ranks disagree; rank 0 has unit x, rank 2 has "
                           "unit y"),
                  error);
  }
}

TEST_CASE("a difference that is too long ago is found, if not which it was") {
  for (std::string const& error : run_ranks(2, test::patience, [](ThreadWorld& world) {
         exchange_unit(world, world.rank() == 0 ? "x" : "y");
         for (int i = 0; i < 5000; ++i) {
           exchange_unit(world, "z");
         }
         wait_for_failure(world);
       })) {
    CHECK_MESSAGE(contains(error, "ranks made different calls, too long ago to say which"), error);
  }
}

TEST_CASE("ranks that are far apart in time but make the same calls are left in peace") {
  CHECK(run_ranks(3, test::patience, [](ThreadWorld& world) {
          auto const group = world.split(0, world.rank());
          for (int i = 0; i < 20'000; ++i) {
            exchange_unit(i % 3 == 0 ? group : world, std::to_string(i % 11));
            if (i % 5000 == 1000 * world.rank()) {
              std::this_thread::sleep_for(milliseconds(300));  // longer than a round
            }
            world.check();
          }
        }) == Texts(3, "no error"));
}

TEST_CASE("Checks::full compares before the call") {
  Texts errors(2, "no error");
  try {
    sm::launch(sm::nccl_threads{2, test::patience, sm::Checks::full}, [&](ThreadWorld& world) {
      exchange_unit(world, "same");
      try {
        exchange_unit(world, world.rank() == 0 ? "x" : "y");
      } catch (sm::MismatchError const& error) {
        errors[static_cast<std::size_t>(world.rank())] = error.what();
        throw;
      }
    });
  } catch (sm::Error const&) {  // it is in the list
  }
  for (std::string const& error : errors) {
    CHECK_MESSAGE(contains(error, "rank 0 has unit x, rank 1 has unit y"), error);
  }
}

TEST_CASE("beats travel whole, and what is none is a failure") {
  for (Beat const& beat :
       {Beat{}, Beat{Beat::stuck, 7, "world/1.0", "exchange", {1, 2, 3}},
        Beat{Beat::failed, 0, "", "words", {}}, Beat{Beat::answer, 3, "", "", {}},
        Beat{Beat::calls, 0, "", "", {1, 17, 2, 18}}}) {
    CHECK(sm::nccl::unpack(sm::nccl::pack(beat)) == beat);
  }
  CHECK(sm::nccl::unpack(std::vector<std::byte>(5)).kind == Beat::failed);
  auto bytes = sm::nccl::pack({Beat::stuck, 7, "group", "text", {1}});
  bytes.resize(bytes.size() - 10);
  CHECK(sm::nccl::unpack(bytes).kind == Beat::failed);
}

#if SHARDMESH_TEST_MAY_FORK

TEST_CASE("a process that is killed is named by all others, long before the time is over") {
  Behaviour const alone(&fake::World::alone, true);
  for (int victim : {0, 1, 3}) {
    auto const status = sm::spawn_processes(
        4,
        [victim] {
          std::string const who = "rank " + std::to_string(victim) + " has ended";
          std::string const error = test::error_of<sm::RankFailed>([victim] {
            sm::launch(sm::nccl_environment{.timeout = test::patience},
                       [victim](SocketWorld& world) {
                         ring(world);
                         if (world.rank() == victim) {
                           ::usleep(300'000);  // the others wait by then, or soon
                           ::raise(SIGKILL);
                         }
                         sm::CudaStream{}.synchronize();
                         world.barrier();
                       });
          });
          bool const good = contains(error, who);
          if (!good) {
            std::fprintf(stderr, "instead of \"%s\": %s\n", who.c_str(), error.c_str());
          }
          return good ? 0 : 1;
        },
        60);  // who waits until the time is over is killed before
    for (int rank = 0; rank < 4; ++rank) {
      CHECK(status[static_cast<std::size_t>(rank)] == (rank == victim ? 128 + SIGKILL : 0));
    }
  }
}

#endif

TEST_SUITE_END();
