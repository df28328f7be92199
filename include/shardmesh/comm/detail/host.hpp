// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string_view>

#include <unistd.h>

#include <shardmesh/core/counters.hpp>
#include <shardmesh/core/fingerprint.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Stands for the machine that the process runs on: equal for two processes on one, also in containers and network
/// namespaces of their own.
[[nodiscard]] inline std::uint64_t host_id() {
  static std::uint64_t const id = [] {
    std::array<char, 256> text{};
    std::size_t size = 0;
    if (std::FILE* const file = std::fopen("/proc/sys/kernel/random/boot_id", "r")) {
      size = std::fread(text.data(), 1, text.size(), file);
      std::fclose(file);
    }
    if (size == 0 && ::gethostname(text.data(), text.size() - 1) == 0) {
      size = std::string_view(text.data()).size();
    }
    return Fingerprint().add(std::string_view(text.data(), size)).value();
  }();
  return id;
}

/// Counts elements that were sent to a rank of another process.
/// @param host  of the other rank.
inline void count_sent(std::uint64_t host, std::size_t bytes) noexcept {
  (host == host_id() ? counts().host_bytes : counts().network_bytes).add(bytes);
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
