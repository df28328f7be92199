// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/fingerprint.hpp>
#include <shardmesh/layout/layout.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What moves, for comparing it between ranks: elements of one type, from one layout to another.
struct MoveWords {
  DType dtype;
  Layout const& from;
  Layout const& to;

  /// "float32 (8, 8) on mesh (4) as (Shard(0)) -> (8, 8) on mesh (4) as (Replicate)".
  [[nodiscard]] std::string operator()() const {
    return std::string(to_string(dtype)) + " " + to_string(from) + " -> " + to_string(to);
  }

  [[nodiscard]] Fingerprint fingerprint() const {
    return Fingerprint()
        .add(static_cast<std::uint64_t>(dtype))
        .add(shardmesh::fingerprint(from).value())
        .add(shardmesh::fingerprint(to).value());
  }
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
