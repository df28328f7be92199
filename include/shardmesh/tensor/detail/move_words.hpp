// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/fingerprint.hpp>
#include <shardmesh/plan/holding.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What moves, for comparing it between ranks: elements of one type, from one holding to another.
struct MoveWords {
  DType dtype;
  Holding const& from;  // of the caller, who keeps them as long as the words
  Holding const& to;

  /// "float32 (8, 8) on mesh (4) as (Shard(0)) -> (8, 8) on mesh (4) as (Replicate)".
  [[nodiscard]] std::string operator()() const {
    return std::string(to_string(dtype)) + " " + to_string(from) + " -> " + to_string(to);
  }

  [[nodiscard]] static std::uint64_t fingerprint_of(Holding const& holding) {
    return shardmesh::fingerprint(holding).value();
  }
  [[nodiscard]] Fingerprint fingerprint() const {
    return Fingerprint()
        .add(static_cast<std::uint64_t>(dtype))
        .add(fingerprint_of(from))
        .add(fingerprint_of(to));
  }
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
