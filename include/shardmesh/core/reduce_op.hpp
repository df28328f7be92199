// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <string_view>

namespace shardmesh {
inline namespace v0 {

/// How the terms of a partial tensor become its value. `avg` is the sum divided by the number of
/// terms.
enum class ReduceOp : std::uint8_t { sum, avg, min, max, product };

/// "sum", "avg", "min", "max", "product".
[[nodiscard]] constexpr std::string_view to_string(ReduceOp op) noexcept {
  switch (op) {
    case ReduceOp::sum:
      return "sum";
    case ReduceOp::avg:
      return "avg";
    case ReduceOp::min:
      return "min";
    case ReduceOp::max:
      return "max";
    case ReduceOp::product:
      break;
  }
  return "product";
}

}  // namespace v0
}  // namespace shardmesh
