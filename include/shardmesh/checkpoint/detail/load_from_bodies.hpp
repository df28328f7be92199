// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/load_from.hpp.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/detail/arguments.hpp>
#include <shardmesh/checkpoint/detail/load_job.hpp>
#include <shardmesh/checkpoint/detail/tied.hpp>
#include <shardmesh/checkpoint/load_from.hpp>
#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/working.hpp>
#include <shardmesh/core/counters.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/value_finder.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Values come first: options that an optimizer cannot take are refused before a tensor is read.
template <Catalog C>
void load_values(AnyRanks const& comm, LoadJob<C>& job) {
  std::string shared;
  if (!job.plan().values.empty()) {
    together(comm, "shardmesh::load", [&] { shared = job.read_values(comm.rank()); });
  }
  if (job.shares_values()) {
    job.take_values(all_gather_text(comm, shared, "load"));
  }
  together(comm, "shardmesh::load", [&] { job.stage_values(); });
  job.find_unused(comm);
}

/// Rounds in which nothing is passed on need no agreement: a failure in one is told later.
template <Catalog C>
void load_in_rounds(AnyRanks const& comm, LoadJob<C>& job, std::atomic<std::uint64_t>& done) {
  std::exception_ptr error;
  for (std::vector<std::size_t> const& round : job.plan().rounds) {
    typename LoadJob<C>::Traffic traffic;
    if (!error) {
      error = caught([&] { job.read_round(round, comm.rank(), comm.size(), traffic, done); });
    }
    if (job.is_shared(round)) {
      if (!error) {
        error = caught([&] { job.expect_round(round, comm.rank(), comm.size(), traffic); });
      }
      agree_on_failure(comm, "shardmesh::load", error);
      comm.exchange(traffic.sends, traffic.receives, "load");
      error = caught([&] { job.unpack_round(round, comm.rank(), traffic); });
    }
  }
  agree_on_failure(comm, "shardmesh::load", error);
}

/// Ranks that share an address space put what they read straight into the places of all that want it.
/// @returns false, with nothing read, where a rank wants elements of another dtype than is stored.
template <Catalog C>
[[nodiscard]] bool load_into_places(AnyRanks const& comm,
                                    LoadJob<C>& job,
                                    std::atomic<std::uint64_t>& done) {
  std::unique_ptr<AnyRanks::CopyPhase> const phase = comm.copy_phase();
  if (phase == nullptr) {
    return false;
  }
  bool const open = job.take_places(all_gather_text(comm, job.pack_places(), "load"));
  std::exception_ptr error;
  if (open) {
    error = caught([&] { job.read_into_places(comm.rank(), done); });
  }
  phase->end();
  agree_on_failure(comm, "shardmesh::load", error);
  phase->close();
  return open;
}

template <Catalog C>
void load_tensors(AnyRanks const& comm, LoadJob<C>& job) {
  std::atomic<std::uint64_t> done{0};
  Working const work(comm, "reads its part of a checkpoint", &done);
  bool const in_place = load_into_places(comm, job, done);
  if (!in_place) {
    load_in_rounds(comm, job, done);
  }
  agree_on_failure(comm, "shardmesh::load", caught([&] {
                     for (std::vector<std::size_t> const& round : job.plan().rounds) {
                       std::uint64_t const received = job.count_received(round, comm.rank());
                       counts().process_bytes.add(in_place ? received : 0);
                     }
                     job.compare_tied();
                   }));
}

/// As many processors as there are for each rank on a host that all ranks share.
[[nodiscard]] inline std::size_t threads_of_rank(int ranks) {
  constexpr std::size_t most = 8;
  return std::clamp<std::size_t>(
      std::thread::hardware_concurrency() / static_cast<std::size_t>(ranks), 1, most);
}

[[nodiscard]] constexpr std::string_view name_of(KeyPolicy policy) noexcept {
  constexpr std::array<std::string_view, 4> names{"error", "log", "collect", "ignore"};
  return names[static_cast<std::size_t>(policy)];
}

/// @throws MismatchError on every rank.
/// @collective over `comm`.
template <Communicator Comm>
void refuse_other_options(Comm const& comm, LoadOptions const& options) {
  constexpr std::array<std::string_view, 3> dtypes{"error", "warn", "cast"};
  Arguments own;
  own.add("dtype", dtypes[static_cast<std::size_t>(options.dtype)]);
  own.add("missing", name_of(options.missing));
  own.add("unexpected", name_of(options.unexpected));
  own.add("round_bytes", std::to_string(options.round_bytes));
  refuse_other_arguments(comm, "shardmesh::load", own);
}

/// The lines of KeyPolicy::log.
inline void log_keys(LoadOptions const& options, CheckpointReport const& report) {
  auto const log = [](KeyPolicy policy, std::vector<std::string> const& keys, char const* what) {
    for (std::string const& key : keys) {
      if (policy == KeyPolicy::log) {
        say(LogLevel::warning, [&] {
          return concat("shardmesh::load: \"", escaped(key), "\" is ", what, " the checkpoint");
        });
      }
    }
  };
  log(options.missing, report.missing, "missing from");
  log(options.unexpected, report.unexpected, "unexpected in");
}

/// One attempt to load. Throws `Replaced` on all ranks if it can be tried again.
template <Catalog C>
CheckpointReport load_once(AnyRanks const& comm,
                           std::function<std::unique_ptr<C>()> const& open,
                           StateDict& dict,
                           LoadOptions const& options) {
  CheckpointReport report;
  std::unique_ptr<C> catalog;
  std::optional<LoadJob<C>> job;
  std::vector<Tie> const ties = gather_ties(comm, dict);
  LoadOptions own = options;
  own.threads = options.threads > 0 ? options.threads : threads_of_rank(comm.size());
  together(comm, "shardmesh::load", [&] {
    catalog = open();
    job.emplace(*catalog, dict, own, report, ties);
  });
  job->make_plan(comm);
  load_values(comm, *job);
  load_tensors(comm, *job);
  report.bytes_read = catalog->bytes_read();
  report.rounds = job->plan().rounds.size();
  std::vector<std::string> const left_out = job->take_left_out();
  std::optional<ReadyLoad<C>> ready;
  together(comm, "shardmesh::load", [&] { ready.emplace(std::move(*job).ready(dict)); });
  comm.barrier("load");  // whoever comes through has nothing left to do that can fail
  ready->apply();
  if (comm.rank() == 0) {
    log_keys(options, report);
    warn_of_left_out("shardmesh::load", left_out);
    say(LogLevel::info, [&report] {
      return concat("shardmesh::load: ", std::to_string(report.bytes_read),
                    " bytes read by rank 0 in ", std::to_string(report.rounds), " rounds");
    });
  }
  return report;
}

template <Catalog C>
CheckpointReport load_until_whole(AnyRanks const& comm,
                                  std::function<std::unique_ptr<C>()> const& open,
                                  StateDict& dict,
                                  LoadOptions const& options) {
  refuse_other_options(comm, options);
  return read_until_whole([&] { return load_once(comm, open, dict, options); });
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
