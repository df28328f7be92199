// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// The finaliser of splitmix64 (Steele, Lea and Flood, https://doi.org/10.1145/2714064.2660195).
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

}  // namespace detail

/// 64 bits that stand for a sequence of numbers and texts: the same on every rank of a job, so that
/// ranks can compare what they are about to do without sending it. Depends on the order. No defence
/// against somebody who wants two sequences to look alike.
class Fingerprint {
 public:
  constexpr Fingerprint() = default;

  constexpr Fingerprint& add(std::uint64_t number) noexcept {
    value_ = detail::mix((value_ ^ number) + 0x9e3779b97f4a7c15U);
    return *this;
  }
  constexpr Fingerprint& add(std::string_view text) noexcept {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      word = (word << 8U) | static_cast<unsigned char>(text[i]);
      if (i % 8 == 7) {
        add(word);
        word = 0;
      }
    }
    return add(word).add(std::uint64_t{text.size()});
  }

  [[nodiscard]] constexpr std::uint64_t value() const noexcept { return value_; }

 private:
  std::uint64_t value_ = 0;
};

}  // namespace v0
}  // namespace shardmesh
