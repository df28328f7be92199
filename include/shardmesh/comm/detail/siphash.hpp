// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// 128 bits: a key, or what SipHash makes of a message.
struct SipWords {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  friend constexpr bool operator==(SipWords const&, SipWords const&) = default;
};

/// SipHash-2-4 of Aumasson and Bernstein ("SipHash: a fast short-input PRF", 2012): a keyed code that
/// nobody can make, or tell from chance, without the key. With 64 bits, or with 128.
class SipHash {
 public:
  enum class Bits { b64, b128 };

  explicit SipHash(SipWords key, Bits bits = Bits::b64) noexcept
      : state_{key.low ^ 0x736f6d6570736575U,
               key.high ^ 0x646f72616e646f6dU ^ (bits == Bits::b128 ? 0xeeU : 0U),
               key.low ^ 0x6c7967656e657261U, key.high ^ 0x7465646279746573U},
        bits_(bits) {}

  SipHash& add(std::span<std::byte const> bytes) noexcept {
    std::size_t const held = length_ % 8;
    length_ += bytes.size();
    if (held > 0) {
      std::size_t const taken = std::min(8 - held, bytes.size());
      std::copy_n(bytes.begin(), taken, tail_.begin() + static_cast<std::ptrdiff_t>(held));
      bytes = bytes.subspan(taken);
      if (held + taken < 8) {
        return *this;
      }
      state_.take(tail_.data());
    }
    State state =
        state_;  // in registers: bytes may be anybody's, this object's for all that is known
    std::byte const* at = bytes.data();
    for (std::byte const* const end = at + bytes.size() / 8 * 8; at != end; at += 8) {
      state.take(at);
    }
    state_ = state;
    std::copy_n(at, bytes.size() % 8, tail_.begin());
    return *this;
  }

  [[nodiscard]] std::uint64_t finish() noexcept { return finish_both().low; }
  /// @pre made with 128 bits.
  [[nodiscard]] SipWords finish_both() noexcept {
    std::fill(tail_.begin() + static_cast<std::ptrdiff_t>(length_ % 8), tail_.end(), std::byte{0});
    tail_[7] = static_cast<std::byte>(length_ & 255U);
    state_.take(tail_.data());
    state_.v2 ^= bits_ == Bits::b128 ? 0xeeU : 0xffU;
    SipWords result;
    result.low = state_.end();
    if (bits_ == Bits::b128) {
      state_.v1 ^= 0xddU;
      result.high = state_.end();
    }
    return result;
  }

 private:
  struct State {
    std::uint64_t v0;
    std::uint64_t v1;
    std::uint64_t v2;
    std::uint64_t v3;

    void round() noexcept {
      v0 += v1;
      v2 += v3;
      v1 = std::rotl(v1, 13) ^ v0;
      v3 = std::rotl(v3, 16) ^ v2;
      v0 = std::rotl(v0, 32);
      v2 += v1;
      v0 += v3;
      v1 = std::rotl(v1, 17) ^ v2;
      v3 = std::rotl(v3, 21) ^ v0;
      v2 = std::rotl(v2, 32);
    }

    void take(std::byte const* eight) noexcept {
      std::uint64_t word = 0;
      std::memcpy(&word, eight,
                  sizeof(word));  // little-endian hosts only, as in all of this library
      v3 ^= word;
      round();
      round();
      v0 ^= word;
    }

    [[nodiscard]] std::uint64_t end() noexcept {
      for (int i = 0; i < 4; ++i) {
        round();
      }
      return v0 ^ v1 ^ v2 ^ v3;
    }
  };

  State state_;
  Bits bits_;
  std::array<std::byte, 8> tail_{};
  std::size_t length_ = 0;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
