// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include "../support/disagreements.hpp"

#include <chrono>
#include <cstddef>
#include <mutex>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/sockets.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../comm/ranks.hpp"
#include "../support/sample.hpp"

namespace disagreements_test {

namespace sm = shardmesh;

namespace {

/// Every two actions, on `run(body)`, which calls body(comm) on all ranks of one launch. A rank whose
/// error was not as it should be ends its launch, and is reported.
/// Where sanitizers watch, one of seven pairs. @returns how many there were.
template <class Comm, class Run>
std::size_t try_all_pairs(Run run) {
  auto const actions = test::all_actions<Comm>();
  std::size_t pairs = 0;
  std::mutex mutex;
  std::vector<std::string> faults;
  for (std::size_t a = 0; a < actions.size(); ++a) {
    run([&](Comm const& comm) {
      bool const last = comm.rank() + 1 == comm.size();
      for (std::size_t b = 0; b < actions.size(); ++b) {
        if (a == b || !test::sampled(a * actions.size() + b, 7)) {
          continue;
        }
        std::string const fault = test::fault_of(actions[last ? b : a], comm);
        std::lock_guard const lock(mutex);
        pairs += last ? 1 : 0;
        if (!fault.empty()) {
          faults.push_back(actions[a].name + " against " + actions[b].name + ", rank " +
                           std::to_string(comm.rank()) + ": " + fault);
          throw sm::CommError(faults.back());
        }
      }
    });
  }
  for (std::string const& fault : faults) {
    FAIL_CHECK(fault);
  }
  return pairs;
}

}  // namespace

TEST_SUITE_BEGIN("tensor.disagreements");

TEST_CASE("threads: ranks that do not do the same all get an error that names both sides") {
  for (int ranks : {2, 3}) {
    std::size_t const pairs = try_all_pairs<sm::ThreadsCommunicator>([ranks](auto&& body) {
      try {
        sm::launch(sm::threads{ranks, test::patience}, body);
      } catch (sm::CommError const&) {  // it is in the list
      }
    });
    MESSAGE(pairs << " disagreements of " << ranks << " threads");
    CHECK(pairs > (test::sanitized ? 100 : 900));
  }
}

TEST_CASE("sockets: ranks that do not do the same all get an error that names both sides") {
  for (int ranks : {2, 3}) {
    std::size_t const pairs = try_all_pairs<sm::SocketCommunicator>([ranks](auto&& body) {
      static_cast<void>(test::run_sockets(ranks, test::patience, body));
    });
    MESSAGE(pairs << " disagreements of " << ranks << " ranks on sockets");
    CHECK(pairs > (test::sanitized ? 100 : 900));
  }
}

TEST_CASE("threads: ranks that do the same are not taken for different ones") {
  std::size_t const calls = test::agreeing_calls(test::sanitized ? 2'000 : 20'000);
  sm::launch(sm::threads{2}, [&](sm::ThreadsCommunicator const& comm) {
    CHECK(test::false_alarm(comm, calls) == "");
  });
  MESSAGE(calls << " calls that agree");
}

TEST_CASE("sockets: ranks that do the same are not taken for different ones") {
  std::size_t const calls = test::agreeing_calls(test::sanitized ? 1'000 : 10'000);
  std::vector<std::string> alarms(2);
  auto const errors =
      test::run_sockets(2, std::chrono::minutes(1), [&](sm::SocketCommunicator const& comm) {
        alarms[static_cast<std::size_t>(comm.rank())] = test::false_alarm(comm, calls);
      });
  CHECK(alarms == std::vector<std::string>(2));
  CHECK(errors == test::Texts(2, "no error"));
  MESSAGE(calls << " calls that agree");
}

TEST_CASE("threads: a call that one rank leaves out ends in an error on the others, not in a wrong "
          "value") {
  auto const actions = test::all_actions<sm::ThreadsCommunicator>();
  for (auto const& action : actions) {
    std::string what = "no error";
    CHECK_THROWS_AS(sm::launch(sm::threads{2, test::patience},
                               [&](sm::ThreadsCommunicator const& comm) {
                                 test::DisagreementWorld<sm::ThreadsCommunicator> const world(comm);
                                 if (comm.rank() == 0) {
                                   return;
                                 }
                                 try {
                                   action.run(world);
                                 } catch (sm::Error const& error) {
                                   what = error.what();
                                   throw;
                                 }
                               }),
                    sm::CommError);
    CHECK(what.find("rank 0 has left without taking part") != std::string::npos);
  }
  MESSAGE(actions.size() << " calls that one thread leaves out");
}

TEST_CASE("sockets: a call that one rank leaves out ends in an error on the others, not in a wrong "
          "value") {
  auto const actions = test::all_actions<sm::SocketCommunicator>();
  for (auto const& action : actions) {
    for (int const leaves : {0, 2}) {
      auto const errors =
          test::run_sockets(3, test::patience, [&](sm::SocketCommunicator const& comm) {
            test::DisagreementWorld<sm::SocketCommunicator> const world(comm);
            if (comm.rank() != leaves) {
              action.run(world);
            }
          });
      for (int rank = 0; rank < 3; ++rank) {
        std::string const& what = errors[static_cast<std::size_t>(rank)];
        CAPTURE(action.name);
        CAPTURE(what);
        CHECK((rank == leaves) == (what == "no error"));
        CHECK((rank == leaves || what.find("rank " + std::to_string(leaves)) != what.npos));
      }
    }
  }
  MESSAGE((2 * actions.size()) << " calls that one of three ranks on sockets leaves out");
}

TEST_CASE("long lists of arguments show where they differ") {
  auto const list = [](std::string const& odd) {
    std::string text;
    for (int i = 0; i < 100; ++i) {
      text += " \"layer" + std::to_string(i) + "\" float32 (8, " + (i == 70 ? odd : "4") + ");";
    }
    return text;
  };
  std::string const what = sm::detail::mismatch_text(0, {"full_state_dict", list("4")}, 3,
                                                     {"full_state_dict", list("5")});
  CHECK(what.find("rank 0 has ... \"layer70\" float32 (8, 4);") != std::string::npos);
  CHECK(what.find("rank 3 has ... \"layer70\" float32 (8, 5);") != std::string::npos);
  CHECK(what.size() < 1200);
}

TEST_SUITE_END();

}  // namespace disagreements_test
