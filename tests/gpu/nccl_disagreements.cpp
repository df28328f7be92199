// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include "nccl_disagreements.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include <shardmesh/comm/nccl/launch.hpp>

#include "../support/disagreements.hpp"

namespace test {

namespace {

/// What one rank does of a disagreement over NCCL: the call itself may end well, as nothing waits for
/// the comparison, but the error comes soon after it.
/// @returns what is wrong.
template <class Comm>
std::string fault_on_device(DisagreementAction<Comm> const& action,
                            Comm const& comm,
                            std::chrono::milliseconds& longest) {
  DisagreementWorld<Comm> const world(comm);
  auto const start = std::chrono::steady_clock::now();
  std::string fault = "no error";
  try {
    action.run(world);
    for (int i = 0; i < 5000; ++i) {
      comm.check();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  } catch (sm::MismatchError const& error) {
    fault = fault_of_mismatch(error.what());
  } catch (std::exception const& error) {
    fault = std::string("another kind of error: ") + error.what();
  }
  longest = std::max(longest, std::chrono::duration_cast<std::chrono::milliseconds>(
                                  std::chrono::steady_clock::now() - start));
  return fault;
}

template <class Comm>
auto device_actions() {
  auto actions = moving_actions<sm::CudaMemory, Comm>();
  for (auto& one : talking_actions<Comm>()) {
    if (one.name == "barrier" || one.name == "group 0" || one.name == "group 1" ||
        one.name == "split") {
      actions.push_back(std::move(one));
    }
  }
  return actions;
}

/// Pairs of actions, so many of each, or of every `step`th, with the ones that follow it.
template <class Run>
DisagreementReport pairs_of(std::size_t actions, std::size_t each, std::size_t step, Run run) {
  DisagreementReport report;
  for (std::size_t a = 0; a < actions; a += step) {
    for (std::size_t next = 1; next <= each; ++next) {
      if (std::size_t const b = (a + next) % actions; a != b) {
        ++report.pairs;
        run(a, b, report);
      }
    }
  }
  return report;
}

}  // namespace

DisagreementReport nccl_disagreements_of_threads(int ranks, std::size_t each, std::size_t step) {
  using Comm = sm::NcclCommunicator<sm::ThreadsCommunicator>;
  auto const actions = device_actions<Comm>();
  return pairs_of(
      actions.size(), each, step, [&](std::size_t a, std::size_t b, DisagreementReport& report) {
        std::fprintf(stderr, "nccl, %d threads: %s against %s\n", ranks, actions[a].name.c_str(),
                     actions[b].name.c_str());
        std::mutex mutex;
        try {
          sm::launch(sm::nccl_threads{ranks}, [&](Comm const& comm) {
            std::chrono::milliseconds time{0};
            bool const last = comm.rank() + 1 == comm.size();
            std::string const fault = fault_on_device(actions[last ? b : a], comm, time);
            {
              std::lock_guard const lock(mutex);
              report.longest = std::max(report.longest, time);
              if (!fault.empty() && report.first_wrong.empty()) {
                report.first_wrong = actions[a].name + " against " + actions[b].name + ", rank " +
                                     std::to_string(comm.rank()) + ": " + fault;
              }
            }
            comm.check();  // throws: a job that has failed ends
          });
        } catch (std::exception const&) {  // it was looked at where it was thrown
        }
      });
}

std::string nccl_disagreement_of_processes(std::size_t pair) {
  using Comm = sm::NcclCommunicator<sm::SocketCommunicator>;
  std::string fault = "no launch";
  try {
    sm::launch(sm::nccl_environment{.share_devices = true}, [&](Comm const& comm) {
      auto const actions = device_actions<Comm>();
      std::size_t const a = pair % actions.size();
      std::size_t const b = (a + 1 + pair / actions.size()) % actions.size();
      std::chrono::milliseconds time{0};
      bool const last = comm.rank() + 1 == comm.size();
      fault = fault_on_device(actions[last ? b : a], comm, time);
      fault = fault.empty() ? "" : actions[a].name + " against " + actions[b].name + ": " + fault;
      comm.check();
    });
  } catch (std::exception const&) {  // it was looked at where it was thrown
  }
  return fault;
}

}  // namespace test
