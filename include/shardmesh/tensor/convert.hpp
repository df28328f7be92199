// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <type_traits>

#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// The same values as another element type (float64, float32, float16, bfloat16), rounded to
/// nearest, ties to even; the tensor itself if it has that type.
/// @param stream the conversion is ordered on it.
template <Element To, Element From, MemorySpace Space>
[[nodiscard]] Tensor<To, Space> convert(Tensor<From, Space> const& tensor,
                                        typename Space::Stream stream = {}) {
  if constexpr (std::is_same_v<To, From>) {
    return tensor;
  } else {
    static_assert(detail::is_convertible_element<To> && detail::is_convertible_element<From>,
                  "shardmesh::convert: only float64, float32, float16 and bfloat16 convert into "
                  "each other");
    Tensor<To, Space> converted(tensor.shape(), stream);
    Space::convert(dtype_of<From>, tensor.data(), dtype_of<To>, converted.data(), tensor.size(),
                   stream);
    return converted;
  }
}

}  // namespace v0
}  // namespace shardmesh
