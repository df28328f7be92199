// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// What the watchdog of one rank tells those of all others in a round.
struct Beat {
  enum Kind : std::uint8_t {
    fine,
    leaving,  ///< this rank is done, and its operations are
    failed,   ///< `text` says why
    stuck,    ///< operation `number` of `group`, named by `text`, is overdue
    answer,   ///< to "stuck" of the last round: this rank has entered `number` operations there
  };
  static constexpr std::uint64_t no_member = ~std::uint64_t{0};

  Kind kind = fine;
  std::uint64_t number = 0;
  std::string group;
  std::string text;

  friend bool operator==(Beat const&, Beat const&) = default;
};

[[nodiscard]] inline std::vector<std::byte> pack(Beat const& beat) {
  std::uint64_t const head[3] = {beat.kind, beat.number, beat.group.size()};
  std::vector<std::byte> bytes(sizeof(head) + beat.group.size() + beat.text.size());
  std::memcpy(bytes.data(), head, sizeof(head));
  std::string const texts = beat.group + beat.text;
  if (!texts.empty()) {
    std::memcpy(bytes.data() + sizeof(head), texts.data(), texts.size());
  }
  return bytes;
}

/// What is no beat reads as a failure.
[[nodiscard]] inline Beat unpack(std::span<std::byte const> bytes) {
  std::uint64_t head[3] = {};
  bool good = bytes.size() >= sizeof(head);
  if (good) {
    std::memcpy(head, bytes.data(), sizeof(head));
    good = head[0] <= Beat::answer && head[2] <= bytes.size() - sizeof(head);
  }
  if (!good) {
    return {Beat::failed, 0, "", "it sent something that is no message of this program"};
  }
  auto const* const text = reinterpret_cast<char const*>(bytes.data()) + sizeof(head);
  auto const group = static_cast<std::size_t>(head[2]);
  return {static_cast<Beat::Kind>(head[0]), head[1], std::string(text, group),
          std::string(text + group, bytes.size() - sizeof(head) - group)};
}

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
