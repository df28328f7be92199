// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>

#include <shardmesh/core/config.hpp>

namespace shardmesh {
inline namespace v0 {

/// How much what is said matters. What goes wrong in a call is an exception, and not logged as well.
enum class LogLevel : std::uint8_t {
  debug,    ///< how something is done: plans that are made
  info,     ///< what was done: saves and loads
  warning,  ///< what should be looked at: keys that a load was to log, ranks that share a GPU
  error,    ///< what went wrong and nobody was told otherwise: a save in the background
  off,      ///< as the level of a log: nothing
};

[[nodiscard]] constexpr std::string_view to_string(LogLevel level) noexcept {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warning:
      return "warning";
    case LogLevel::error:
      return "error";
    case LogLevel::off:
      break;
  }
  return "off";
}

/// Takes what the library says, in place of the error stream; see `UseLogSink`.
class LogSink {
 public:
  LogSink() = default;
  LogSink(LogSink const&) = delete;
  LogSink& operator=(LogSink const&) = delete;
  virtual ~LogSink() = default;

  /// Called by one thread at a time, of whatever rank has something to say. Must not call the library.
  /// @param line  without a newline, and which starts with whose it is ("shardmesh::load: ..."). Valid during the call.
  ///              What it throws is dropped.
  virtual void write(LogLevel level, std::string_view line) = 0;
};

namespace detail {

/// Where the process's lines go.
struct Log {
  static constexpr int unset = -1;

  std::atomic<int> level = unset;  ///< a `LogLevel`, or `unset` until somebody asks
  std::mutex mutex;                ///< held while a sink writes
  LogSink* sink = nullptr;         ///< none: the error stream
};

/// That of the process, also where it has several shared objects with the library in them.
[[nodiscard]] SHARDMESH_EXPORT inline Log& log_in_use() noexcept {
  static constinit Log log;
  return log;
}

/// What the environment asks for; a name that is none counts as not given.
[[nodiscard]] inline LogLevel log_level_of_environment() noexcept {
  char const* const given = std::getenv("SHARDMESH_LOG_LEVEL");
  for (LogLevel const level : {LogLevel::debug, LogLevel::info, LogLevel::error, LogLevel::off}) {
    if (given != nullptr && to_string(level) == given) {
      return level;
    }
  }
  return LogLevel::warning;
}

}  // namespace detail

/// Lines below it are not put together at all. At first what the environment variable SHARDMESH_LOG_LEVEL says (debug,
/// info, warning, error, off), or warning.
[[nodiscard]] inline LogLevel log_level() noexcept {
  std::atomic<int>& level = detail::log_in_use().level;
  int now = level.load(std::memory_order_relaxed);
  if (now == detail::Log::unset) {
    auto const asked = static_cast<int>(detail::log_level_of_environment());
    // Somebody may set it in the same moment.
    now = level.compare_exchange_strong(now, asked, std::memory_order_relaxed) ? asked : now;
  }
  return static_cast<LogLevel>(now);
}

/// Of the whole process. Any thread may change it at any time.
inline void set_log_level(LogLevel level) noexcept {
  detail::log_in_use().level.store(static_cast<int>(level), std::memory_order_relaxed);
}

/// While it lives, what the library says in this process goes to a sink: the log of the engine that it is part of. They can
/// be nested; what lives longer was made first. Once it is gone the sink is not called any more.
///
/// @code
///   struct EngineLog : sm::LogSink {
///     void write(sm::LogLevel level, std::string_view line) override { engine::log(level, line); }
///   };
///   EngineLog log;
///   sm::UseLogSink const use(log);
/// @endcode
class UseLogSink {
 public:
  explicit UseLogSink(LogSink& sink) : before_(exchange(&sink)) {}
  UseLogSink(UseLogSink const&) = delete;
  UseLogSink& operator=(UseLogSink const&) = delete;
  ~UseLogSink() { static_cast<void>(exchange(before_)); }

 private:
  /// Waits until the sink before is not being called.
  static LogSink* exchange(LogSink* sink) {
    detail::Log& log = detail::log_in_use();
    std::lock_guard const lock(log.mutex);
    LogSink* const before = log.sink;
    log.sink = sink;
    return before;
  }

  LogSink* before_;
};

namespace detail {

[[nodiscard]] inline bool is_logged(LogLevel level) noexcept {
  return level >= log_level();
}

inline void write_log(LogLevel level, std::string const& line) {
  Log& log = log_in_use();
  std::lock_guard const lock(log.mutex);
  if (log.sink != nullptr) {
    log.sink->write(level, line);
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

/// Says `words()`, if anybody wants to hear it. A log never fails what it tells of.
template <class Words>
void say(LogLevel level, Words const& words) noexcept {
  if (!is_logged(level)) {
    return;
  }
  try {
    write_log(level, words());
  } catch (...) {  // no memory for the words, or the sink's own trouble
  }
}

}  // namespace detail

}  // namespace v0
}  // namespace shardmesh
