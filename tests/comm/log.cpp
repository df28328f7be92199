// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/core/log.hpp>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

namespace log_test {

namespace sm = shardmesh;

using Line = std::pair<sm::LogLevel, std::string>;

namespace {

/// Keeps what is said, without a lock of its own: the library calls it from one thread at a time.
class Kept : public sm::LogSink {
 public:
  void write(sm::LogLevel level, std::string_view line) override {
    lines.emplace_back(level, std::string(line));
  }

  std::vector<Line> lines;
};

class Refuses : public sm::LogSink {
 public:
  void write(sm::LogLevel, std::string_view) override {
    throw std::runtime_error("the log is full");
  }
};

/// Puts the level back that was there.
class AtLevel {
 public:
  explicit AtLevel(sm::LogLevel level) : before_(sm::log_level()) { sm::set_log_level(level); }
  AtLevel(AtLevel const&) = delete;
  AtLevel& operator=(AtLevel const&) = delete;
  ~AtLevel() { sm::set_log_level(before_); }

 private:
  sm::LogLevel before_;
};

constexpr sm::LogLevel all_levels[] = {sm::LogLevel::debug, sm::LogLevel::info,
                                       sm::LogLevel::warning, sm::LogLevel::error};

}  // namespace

TEST_SUITE_BEGIN("comm.log");

TEST_CASE("log: a sink gets what is said at the levels asked for, and words below are not made") {
  struct Row {
    sm::LogLevel level;
    std::vector<Line> wanted;
  };
  Row const rows[] = {
      {sm::LogLevel::debug,
       {{sm::LogLevel::debug, "a debug"},
        {sm::LogLevel::info, "a info"},
        {sm::LogLevel::warning, "a warning"},
        {sm::LogLevel::error, "a error"}}},
      {sm::LogLevel::warning,
       {{sm::LogLevel::warning, "a warning"}, {sm::LogLevel::error, "a error"}}},
      {sm::LogLevel::off, {}},
  };
  for (Row const& row : rows) {
    Kept kept;
    sm::UseLogSink const use(kept);
    AtLevel const at(row.level);
    std::size_t made = 0;
    for (sm::LogLevel const level : all_levels) {
      sm::detail::say(level, [&] {
        ++made;
        return "a " + std::string(to_string(level));
      });
    }
    CHECK(kept.lines == row.wanted);
    CHECK(made == row.wanted.size());
  }
}

TEST_CASE(
    "log: the level of a process that sets none is that of SHARDMESH_LOG_LEVEL, else warning") {
  std::pair<char const*, sm::LogLevel> const rows[] = {
      {"debug", sm::LogLevel::debug},     {"info", sm::LogLevel::info},
      {"warning", sm::LogLevel::warning}, {"error", sm::LogLevel::error},
      {"off", sm::LogLevel::off},         {"loud", sm::LogLevel::warning},
      {"", sm::LogLevel::warning},
  };
  CHECK(sm::detail::log_level_of_environment() == sm::LogLevel::warning);
  for (auto const& [name, level] : rows) {
    ::setenv("SHARDMESH_LOG_LEVEL", name, 1);
    CHECK(sm::detail::log_level_of_environment() == level);
    sm::LogLevel const before = sm::log_level();
    sm::detail::log_in_use().level = sm::detail::Log::unset;
    CHECK(sm::log_level() == level);
    sm::set_log_level(before);
  }
  ::unsetenv("SHARDMESH_LOG_LEVEL");
}

TEST_CASE("log: sinks are nested, and one that throws fails nobody") {
  Kept outer;
  sm::UseLogSink const use(outer);
  auto const say = [](char const* text) {
    sm::detail::say(sm::LogLevel::error, [text] { return std::string(text); });
  };
  {
    Kept inner;
    sm::UseLogSink const use_inner(inner);
    say("one");
    CHECK(inner.lines == std::vector<Line>{{sm::LogLevel::error, "one"}});
    Refuses refuses;
    sm::UseLogSink const use_refusing(refuses);
    say("lost");
  }
  say("two");
  CHECK(outer.lines == std::vector<Line>{{sm::LogLevel::error, "two"}});
}

TEST_CASE("log: threads speak while others change the sink and the level") {
  constexpr int threads = 4;
  constexpr int each = 500;
  Kept first;
  Kept second;
  {
    sm::UseLogSink const use(first);
    std::vector<std::jthread> all;
    for (int t = 0; t < threads; ++t) {
      all.emplace_back([t] {
        for (int i = 0; i < each; ++i) {
          sm::detail::say(sm::LogLevel::error,
                          [&] { return std::to_string(t) + ":" + std::to_string(i); });
          sm::detail::say(sm::LogLevel::debug, [] { return std::string("not asked for"); });
        }
      });
    }
    for (int i = 0; i < 100; ++i) {
      sm::UseLogSink const other(second);
      AtLevel const at(i % 2 == 0 ? sm::LogLevel::error : sm::LogLevel::warning);
    }
  }
  // Every line has come to one of the sinks, those of a thread in their order.
  CHECK(first.lines.size() + second.lines.size() == threads * each);
  for (Kept const* const sink : {&first, &second}) {
    std::vector<int> next(threads, -1);
    for (auto const& [level, line] : sink->lines) {
      std::size_t const colon = line.find(':');
      REQUIRE(level == sm::LogLevel::error);
      REQUIRE(colon != std::string::npos);
      int& last = next[static_cast<std::size_t>(std::stoi(line.substr(0, colon)))];
      int const number = std::stoi(line.substr(colon + 1));
      CHECK(number > last);
      last = number;
    }
  }
}

TEST_SUITE_END();

}  // namespace log_test
