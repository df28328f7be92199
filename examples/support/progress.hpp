// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// How far long work has come: bytes, rate and time left, in one line of a terminal. Sizes for people.

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace tool {

/// "1.50 MiB".
[[nodiscard]] inline std::string readable(std::uint64_t bytes) {
  constexpr std::array<char const*, 5> units{"B", "KiB", "MiB", "GiB", "TiB"};
  auto amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (amount >= 1024 && unit + 1 < units.size()) {
    amount /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.2f %s", amount, units[unit]);
  return text.data();
}

/// "1 h 05 min", "2 min 03 s", "7 s".
[[nodiscard]] inline std::string time_in_words(double seconds) {
  auto const whole = static_cast<unsigned long long>(seconds + 0.5);
  std::array<char, 48> text{};
  if (whole >= 3600) {
    std::snprintf(text.data(), text.size(), "%llu h %02llu min", whole / 3600, whole / 60 % 60);
  } else if (whole >= 60) {
    std::snprintf(text.data(), text.size(), "%llu min %02llu s", whole / 60, whole % 60);
  } else {
    std::snprintf(text.data(), text.size(), "%llu s", whole);
  }
  return text.data();
}

/// A line on the error stream that shows how far long work has come; only on a terminal.
class Progress {
  using Clock = std::chrono::steady_clock;

 public:
  /// @param total  bytes.
  Progress(char const* what, std::uint64_t total, bool shown)
      : what_(what), total_(total), shown_(shown) {}
  ~Progress() { finish(); }
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;

  /// @param done  bytes so far.
  void at(std::uint64_t done) {
    Clock::time_point const now = Clock::now();
    if (!shown_ || (drawn_ && now - last_ < std::chrono::milliseconds(100))) {
      return;
    }
    std::fprintf(stderr, "\r\033[K%s",
                 line(done, std::chrono::duration<double>(now - start_).count()).c_str());
    drawn_ = true;
    last_ = now;
  }

  /// Takes the line away: what is printed next starts on an empty one.
  void finish() {
    if (drawn_) {
      std::fprintf(stderr, "\r\033[K");
      std::fflush(stderr);
      drawn_ = false;
    }
  }

 private:
  [[nodiscard]] std::string line(std::uint64_t done, double seconds) const {
    std::string text = std::string(what_) + ": " + readable(done) + " of " + readable(total_);
    if (seconds > 0.2 && done > 0) {
      double const rate = static_cast<double>(done) / seconds;
      text += ", " + readable(static_cast<std::uint64_t>(rate)) + "/s";
      if (done < total_) {
        text += ", " + time_in_words(static_cast<double>(total_ - done) / rate) + " left";
      }
    }
    return text;
  }

  char const* what_;
  std::uint64_t total_;
  bool shown_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
};

}  // namespace tool
