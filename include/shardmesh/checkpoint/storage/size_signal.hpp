// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cerrno>
#include <csignal>
#include <ctime>

#include <sys/resource.h>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// While it lives, a file that grows beyond the limit of the process is an error of the call (EFBIG), not a signal
/// that ends the process where it stands, with its temporary files. Only of this thread, and only where there is
/// such a limit.
class NoSizeSignal {
 public:
  NoSizeSignal() {
    struct rlimit limit{};
    active_ = ::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    if (active_) {
      sigset_t pending{};
      ::sigemptyset(&signal_);
      ::sigaddset(&signal_, SIGXFSZ);
      ::sigpending(&pending);
      was_pending_ = ::sigismember(&pending, SIGXFSZ) == 1;
      active_ = ::pthread_sigmask(SIG_BLOCK, &signal_, &before_) == 0;
    }
  }
  NoSizeSignal(NoSizeSignal const&) = delete;
  NoSizeSignal& operator=(NoSizeSignal const&) = delete;
  ~NoSizeSignal() {
    if (!active_) {
      return;
    }
    int const code = errno;
    timespec const now{};
    if (!was_pending_) {  // the signal of our own call; not one that somebody waits for
      while (::sigtimedwait(&signal_, nullptr, &now) < 0 && errno == EINTR) {
      }
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = code;
  }

 private:
  bool active_ = false;
  bool was_pending_ = false;
  sigset_t signal_{};
  sigset_t before_{};
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
