// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <vector>

#include <shardmesh/memory/any_stream.hpp>
#include <shardmesh/state/any_tensor.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The stream for an exchange of some tensors, which all have come to it when this returns: that of the first.
/// @pre there is one.
[[nodiscard]] inline AnyStream meeting_stream(std::vector<AnyTensor const*> const& tensors) {
  AnyStream const stream = tensors.front()->stream();
  for (AnyTensor const* const one : tensors) {
    if (!(one->stream() == stream)) {
      one->synchronize();
    }
  }
  return stream;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
