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
    calls,    ///< fingerprints of this rank's calls on the group in dispute (`words`)
    call,     ///< the call in dispute (`text`)
  };
  static constexpr std::uint64_t no_member = ~std::uint64_t{0};

  Kind kind = fine;
  std::uint64_t number = 0;
  std::string group;
  std::string text;
  std::vector<std::uint64_t> words;  ///< plain numbers: progress, or fingerprints of calls

  friend bool operator==(Beat const&, Beat const&) = default;
};

/// A beat as bytes, which `unpack` reads.
[[nodiscard]] inline std::vector<std::byte> pack(Beat const& beat) {
  std::vector<std::uint64_t> numbers{beat.kind, beat.number, beat.group.size(), beat.words.size()};
  numbers.insert(numbers.end(), beat.words.begin(), beat.words.end());
  std::string const texts = beat.group + beat.text;
  std::vector<std::byte> bytes(numbers.size() * sizeof(std::uint64_t) + texts.size());
  std::memcpy(bytes.data(), numbers.data(), bytes.size() - texts.size());
  if (!texts.empty()) {
    std::memcpy(bytes.data() + bytes.size() - texts.size(), texts.data(), texts.size());
  }
  return bytes;
}

/// What is no beat reads as a failure.
[[nodiscard]] inline Beat unpack(std::span<std::byte const> bytes) {
  std::uint64_t head[4] = {};
  bool good = bytes.size() >= sizeof(head);
  if (good) {
    std::memcpy(head, bytes.data(), sizeof(head));
    std::size_t const rest = bytes.size() - sizeof(head);
    good = head[0] <= Beat::call && head[3] <= rest / sizeof(std::uint64_t) &&
           head[2] <= rest - head[3] * sizeof(std::uint64_t);
  }
  if (!good) {
    return {Beat::failed, 0, "", "it sent something that is no message of this program", {}};
  }
  Beat beat{static_cast<Beat::Kind>(head[0]), head[1], "", "",
            std::vector<std::uint64_t>(static_cast<std::size_t>(head[3]))};
  auto rest = bytes.subspan(sizeof(head));
  std::size_t const numbers = beat.words.size() * sizeof(std::uint64_t);
  if (numbers > 0) {
    std::memcpy(beat.words.data(), rest.data(), numbers);
  }
  rest = rest.subspan(numbers);
  auto const* const text = reinterpret_cast<char const*>(rest.data());
  auto const group = static_cast<std::size_t>(head[2]);
  beat.group.assign(text, group);
  beat.text.assign(text + group, rest.size() - group);
  return beat;
}

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
