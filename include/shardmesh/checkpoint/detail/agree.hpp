// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <exception>
#include <string>
#include <utility>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/working.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Throws on every rank if `error` is set on any: there what happened, elsewhere RankFailed with the
/// first failing rank's words.
template <Communicator Comm>
void agree_on_failure(Comm const& comm, char const* operation, std::exception_ptr const& error) {
  std::string text;
  if (error) {
    try {
      std::rethrow_exception(error);
    } catch (std::exception const& problem) {
      text = problem.what();
    } catch (...) {
      text = "an exception that is no std::exception";
    }
  }
  // Named, or ranks with other options might take each other's data for words of a failure.
  auto const problems = all_gather_text(comm, text, Call(operation));
  if (error) {
    std::rethrow_exception(error);
  }
  for (std::size_t rank = 0; rank < problems.size(); ++rank) {
    if (!problems[rank].empty()) {
      int const world = comm.world_ranks()[rank];
      throw RankFailed(world, std::string(operation) + ": rank " + std::to_string(world) +
                                  " failed: " + readable(problems[rank]));
    }
  }
}

/// What `part` throws, or nothing.
template <class Part>
[[nodiscard]] std::exception_ptr caught(Part&& part) {
  try {
    std::forward<Part>(part)();
  } catch (...) {
    return std::current_exception();
  }
  return nullptr;
}

/// Each rank does its part, for which the others wait as long as it takes; if it fails on any, all throw.
template <Communicator Comm, class Part>
void together(Comm const& comm, char const* operation, Part&& part) {
  agree_on_failure(comm, operation, caught([&] {
                     Working const work(comm, std::string("is at its part of ") + operation);
                     std::forward<Part>(part)();
                   }));
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
