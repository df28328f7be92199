// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/core/shape.hpp>
#include <shardmesh/state/any_tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// In what two tensors differ (shape, dtype, placements, mesh, memory space, then local values, bit
/// by bit), in words; empty if in nothing.
[[nodiscard]] inline std::string difference(AnyTensor const& a, AnyTensor const& b) {
  if (!(a.shape() == b.shape())) {
    return "shape " + to_string(a.shape()) + " against " + to_string(b.shape());
  }
  if (a.dtype() != b.dtype()) {
    return "dtype " + std::string(to_string(a.dtype())) + " against " +
           std::string(to_string(b.dtype()));
  }
  if (a.kind() != b.kind() || !(a.layout() == b.layout())) {
    return "layout " + to_string(a.layout()) + " against " + to_string(b.layout());
  }
  if (!(a.mesh() == b.mesh())) {
    return to_string(a.mesh()) + " against " + to_string(b.mesh());
  }
  if (a.memory() != b.memory()) {
    return std::string(to_string(a.memory())) + " memory against " +
           std::string(to_string(b.memory()));
  }
  std::vector<std::byte> const left = a.local_bytes();
  std::vector<std::byte> const right = b.local_bytes();
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (left[i] != right[i]) {
      auto const element = static_cast<index_t>(i / size_of(a.dtype()));
      return "values, first at local index " + to_string(unravel(element, a.local_shape()));
    }
  }
  return {};
}

}  // namespace v0
}  // namespace shardmesh
