// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <condition_variable>  // brings clocks and durations, without the calendars of <chrono>

namespace shardmesh {
inline namespace v0 {

/// How long a rank waits for another before it gives up with a TimeoutError that names it. What the
/// other one does meanwhile decides which limit counts; none counts time in which the waiting process
/// itself was stopped.
///
/// A duration alone sets the first two: `environment{std::chrono::minutes(5)}`.
struct Limits {
  /// The other one lives, but does not make the call. Counted from the later of: this rank began to
  /// wait; the other one ended a `Working`.
  std::chrono::milliseconds call = std::chrono::seconds(60);
  /// Nothing at all is heard from its process: it is stopped, hangs, or its host is cut off. (Threads of
  /// one process hear each other always. MPI needs MPI_THREAD_MULTIPLE for it.)
  std::chrono::milliseconds silence = std::chrono::seconds(60);
  /// It says that it is `Working`, but gets no further.
  std::chrono::milliseconds progress = std::chrono::minutes(30);

  constexpr Limits() = default;
  template <class Rep, class Period>
  constexpr Limits(std::chrono::duration<Rep, Period> timeout) : call(timeout), silence(timeout) {}
};

}  // namespace v0
}  // namespace shardmesh
