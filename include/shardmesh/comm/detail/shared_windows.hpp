// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <shardmesh/comm/call.hpp>
#include <shardmesh/comm/detail/host.hpp>
#include <shardmesh/comm/detail/shared_region.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// How messages are cut so that a part of each fits into a window at a time: whoever receives one reads in every round,
/// and all receivers at once.
class WindowRounds {
 public:
  static constexpr std::size_t line = 64;  // bytes: parts begin at cache lines

  /// What of a message a round carries, and where it lies in the window.
  struct Part {
    std::size_t first = 0;  ///< byte of the message
    std::size_t bytes = 0;
    std::size_t at = 0;  ///< byte of the window
  };

  WindowRounds() = default;

  /// @param messages  bytes of each, in order.
  /// @param window    bytes, more than `line` for each message.
  WindowRounds(std::span<std::size_t const> messages, std::size_t window) {
    if (messages.empty()) {
      return;
    }
    std::size_t total = 0;
    for (std::size_t const bytes : messages) {
      total += bytes;
    }
    // Each part is rounded up by less than a line.
    std::size_t const room = window - messages.size() * line;
    count_ = std::max<std::size_t>(1, (total + room - 1) / room);
    std::size_t at = 0;
    for (std::size_t const bytes : messages) {
      std::size_t const share = (bytes + count_ - 1) / count_;
      std::size_t const step = (share + line - 1) / line * line;
      slots_.push_back({bytes, step, at});
      at += step;
    }
  }

  [[nodiscard]] std::size_t count() const noexcept { return count_; }

  [[nodiscard]] Part part(std::size_t message, std::size_t round) const {
    Slot const& slot = slots_[message];
    std::size_t const first = std::min(slot.bytes, round * slot.step);
    return {first, std::min(slot.step, slot.bytes - first), slot.at};
  }

 private:
  struct Slot {
    std::size_t bytes;  ///< of the message
    std::size_t step;   ///< of them, in a round
    std::size_t at;
  };

  std::size_t count_ = 0;
  std::vector<Slot> slots_;
};

/// Memory through which ranks of one host give each other bytes. Each has a window of its own that it alone writes to,
/// and reads those of the others; nothing in them but tensors' bytes, so whatever lies in one misleads nobody.
///
/// Ranks take turns together: all write, meet, and read while they may already write for the next meeting, since a window
/// has two halves, of which each meeting has the other one. A half is written again after another meeting, which nobody
/// reaches who still reads it.
class SharedWindows {
 public:
  /// SHARDMESH_SHARED_MEMORY=0 for a rank that shall share none.
  static constexpr char const* variable = "SHARDMESH_SHARED_MEMORY";
  static constexpr std::size_t half = std::size_t{1} << 20;  // bytes

  /// @param world  the ranks in the numbering of the whole job, for messages.
  /// @param hosts  of all ranks, by rank.
  /// @param meet   shows bytes to all ranks, and returns what each shows; called twice.
  /// @collective
  template <class Meet>
  SharedWindows(std::size_t rank,
                std::vector<int> const& world,
                std::vector<std::uint64_t> const& hosts,
                Meet const& meet)
      : rank_(rank), windows_(hosts.size()) {
    std::string sign;  // what a rank shows the others: nothing if it wants to share no memory
    if (is_wanted()) {
      if (std::count(hosts.begin(), hosts.end(), hosts[rank_]) > 1) {
        windows_[rank_] = SharedRegion::create(2 * half);
      }
      sign = windows_[rank_] ? windows_[rank_].name() : has_none;
    }
    std::vector<std::string> signs;
    for (auto const& bytes : meet(std::as_bytes(std::span(sign)))) {
      signs.emplace_back(reinterpret_cast<char const*>(bytes.data()), bytes.size());
    }
    auto const may_share = [&](std::size_t a, std::size_t b) {
      return a != b && hosts[a] == hosts[b] && !signs[a].empty() && !signs[b].empty();
    };
    std::vector<std::byte> opened(hosts.size());
    for (std::size_t one = 0; one < hosts.size(); ++one) {
      if (may_share(rank_, one) && signs[one] != has_none) {
        windows_[one] = SharedRegion::open(signs[one], 2 * half);
        opened[one] = std::byte{static_cast<bool>(windows_[one])};
      }
    }
    opened_ = meet(opened);
    windows_[rank_].hide();
    for (std::size_t pair = 0; pair < hosts.size() * hosts.size(); ++pair) {
      std::size_t const a = pair / hosts.size();
      std::size_t const b = pair % hosts.size();
      if (may_share(a, b) && !reaches(a, b)) {
        if (rank_ == a) {  // the first rank to which it happens says so
          say_once(world[a], world[b]);
        }
        break;
      }
    }
  }

  /// Does `to` see what `from` writes? All ranks know it of all.
  [[nodiscard]] bool reaches(std::size_t from, std::size_t to) const {
    return from < opened_.size() && to < opened_.size() && opened_[to].size() > from &&
           opened_[to][from] != std::byte{0};
  }

  /// Where this rank writes before a meeting. @pre another rank sees it.
  [[nodiscard]] std::byte* mine(std::uint64_t meeting) const noexcept {
    return windows_[rank_].data() + meeting % 2 * half;
  }
  /// Where a rank has written before a meeting. @pre it reaches this rank.
  [[nodiscard]] std::byte const* of(std::size_t rank, std::uint64_t meeting) const noexcept {
    return windows_[rank].data() + meeting % 2 * half;
  }

 private:
  [[nodiscard]] static bool is_wanted() {
    char const* const text = std::getenv(variable);
    return text == nullptr || std::string_view(text) != "0";
  }

  static void say_once(int rank, int other) {
    static std::atomic<bool> said = false;
    if (!said.exchange(true)) {
      say(LogLevel::warning, [&] {
        return concat("shardmesh: ranks ", std::to_string(rank), " and ", std::to_string(other),
                      ", processes of one host, share no memory (their /dev/shm is not the same, "
                      "or full): what they send "
                      "each other goes through sockets, which is slower; in containers, --ipc=host "
                      "or a larger "
                      "--shm-size helps, and ",
                      variable, "=0 if it is meant so");
      });
    }
  }

  static constexpr char const* has_none = "-";  // for want of memory

  std::size_t rank_;
  std::vector<SharedRegion> windows_;
  std::vector<std::vector<std::byte>> opened_;  // by rank, a byte for each rank that it sees
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
