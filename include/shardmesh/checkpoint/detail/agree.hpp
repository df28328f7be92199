// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/comm/call.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/working.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A failure as ranks tell it to each other: nothing if there is none, else a mark and the words.
struct FailureText {
  static constexpr char failed = 'F';
  static constexpr char replaced = 'R';  ///< can be tried again

  [[nodiscard]] static std::string of(std::exception_ptr const& error) {
    if (!error) {
      return {};
    }
    try {
      std::rethrow_exception(error);
    } catch (Replaced const& problem) {
      return replaced + std::string(problem.what());
    } catch (std::exception const& problem) {
      return failed + std::string(problem.what());
    } catch (...) {
      return failed + std::string("an exception that is no std::exception");
    }
  }
};

/// What ranks do when they meet for an operation that is named "shardmesh::save": `save`.
/// @param operation  a literal.
[[nodiscard]] constexpr Call call_of(char const* operation) noexcept {
  constexpr std::string_view space = "shardmesh::";
  return std::string_view(operation).starts_with(space) ? operation + space.size() : operation;
}

/// Throws on every rank if `error` is set on any: there what happened, elsewhere RankFailed with the
/// first failing rank's words. If no rank has more than `Replaced`, all throw that.
/// @param operation  a literal: what the user called, with its namespace.
template <Communicator Comm>
void agree_on_failure(Comm const& comm, char const* operation, std::exception_ptr const& error) {
  std::string const mine = FailureText::of(error);
  auto const problems = all_gather_text(comm, mine, call_of(operation));
  if (error && mine.front() == FailureText::failed) {
    std::rethrow_exception(error);
  }
  for (char const kind : {FailureText::failed, FailureText::replaced}) {
    for (std::size_t rank = 0; rank < problems.size(); ++rank) {
      if (problems[rank].empty() || problems[rank].front() != kind) {
        continue;
      }
      if (error && kind == FailureText::replaced) {
        std::rethrow_exception(error);
      }
      int const world = comm.world_ranks()[rank];
      std::string const words =
          concat(operation, ": rank ", std::to_string(world),
                 " failed: ", readable(std::string_view(problems[rank]).substr(1)));
      if (kind == FailureText::replaced) {
        throw Replaced({}, words);
      }
      throw RankFailed(world, words);
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
