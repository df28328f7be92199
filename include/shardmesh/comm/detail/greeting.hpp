// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include <shardmesh/comm/detail/link.hpp>
#include <shardmesh/comm/detail/siphash.hpp>
#include <shardmesh/comm/job_secret.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// How two ranks of a group make sure that both belong to the job, without sending its secret: each gives
/// the other numbers that were never used before, and gets a code of them that only the secret makes.
///
///     rank r -> rank 0   Hello      who, of which group, r's random number
///     rank 0 -> rank r   Challenge  0's random number, the group's, 0's code of all that
///     rank r -> rank 0   Proof      r's code of all that
struct Hello {
  std::uint32_t magic = 0x534d6573;
  std::uint32_t version = 2;
  std::uint32_t rank = 0;
  std::uint32_t size = 0;
  std::uint64_t group = 0;
  std::array<std::byte, 16> nonce{};
};

struct Challenge {
  std::array<std::byte, 16> nonce{};
  std::array<std::byte, 16> group_nonce{};
  SipWords code;
};

struct Proof {
  SipWords code;
};

/// The part of one connection in the greeting, on either side.
class Handshake {
 public:
  explicit Handshake(JobSecret const& secret) : key_(key_of(secret)) {}

  /// Of the codes of payloads in a group.
  [[nodiscard]] static SipWords payload_key(JobSecret const& secret,
                                            std::span<std::byte const> group_nonce) {
    return payload_key(key_of(secret), group_nonce);
  }

  /// Both sides know this much before codes are made.
  void agree(Hello const& hello, Challenge const& challenge) {
    hello_ = hello;
    nonce_ = challenge.nonce;
    group_nonce_ = challenge.group_nonce;
  }

  [[nodiscard]] SipWords code_of_rank_0() const { return code("rank 0 of the group"); }
  [[nodiscard]] SipWords code_of_other() const { return code("another of the group"); }

  [[nodiscard]] LinkKeys keys(bool is_rank_0) const {
    SipWords const down = code("from rank 0");
    SipWords const up = code("to rank 0");
    SipWords const payload = payload_key(key_, group_nonce_);
    return is_rank_0 ? LinkKeys{down, up, payload} : LinkKeys{up, down, payload};
  }

 private:
  /// Twice, so that the first pass, whose key everybody knows, is not all.
  [[nodiscard]] static SipWords key_of(JobSecret const& secret) {
    auto const bytes = std::as_bytes(std::span(secret.text()));
    SipWords const first = SipHash({1, 0}, SipHash::Bits::b128).add(bytes).finish_both();
    return SipHash(first, SipHash::Bits::b128).add(bytes).finish_both();
  }

  [[nodiscard]] static SipWords payload_key(SipWords key, std::span<std::byte const> group_nonce) {
    return SipHash(key, SipHash::Bits::b128)
        .add(std::as_bytes(std::span(std::string_view("payload"))))
        .add(group_nonce)
        .finish_both();
  }

  [[nodiscard]] SipWords code(std::string_view purpose) const {
    static_assert(std::has_unique_object_representations_v<Hello>);
    return SipHash(key_, SipHash::Bits::b128)
        .add(std::as_bytes(std::span(&hello_, 1)))
        .add(nonce_)
        .add(group_nonce_)
        .add(std::as_bytes(std::span(purpose)))
        .finish_both();
  }

  SipWords key_;
  Hello hello_;
  std::array<std::byte, 16> nonce_{};
  std::array<std::byte, 16> group_nonce_{};
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
