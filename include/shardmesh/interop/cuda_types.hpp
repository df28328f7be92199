// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <memory>
#include <utility>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/tensor/local_part.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

// CUDA's own small floating-point types are elements as well: the same bits as Float16 and so on.
// clang-format off
template <> struct DTypeOf<__half> : DTypeConstant<DType::float16> {};
template <> struct DTypeOf<__nv_bfloat16> : DTypeConstant<DType::bfloat16> {};
template <> struct DTypeOf<__nv_fp8_e4m3> : DTypeConstant<DType::float8_e4m3fn> {};
template <> struct DTypeOf<__nv_fp8_e5m2> : DTypeConstant<DType::float8_e5m2> {};
// clang-format on

}  // namespace detail

static_assert(Element<__half> && sizeof(__half) == size_of(DType::float16));
static_assert(Element<__nv_bfloat16> && sizeof(__nv_bfloat16) == size_of(DType::bfloat16));
static_assert(Element<__nv_fp8_e4m3> && sizeof(__nv_fp8_e4m3) == size_of(DType::float8_e4m3fn));
static_assert(Element<__nv_fp8_e5m2> && sizeof(__nv_fp8_e5m2) == size_of(DType::float8_e5m2));

/// The same tensor with another C++ type for the same elements, without a copy:
/// `retyped<__half>(x)` of a tensor of `Float16`, and back.
/// @pre nobody reads elements by the one type that were written by the other in the same function:
///      a compiler may take two types for two memories.
template <Element U, AnyTensorType X>
  requires(dtype_of<U> == dtype_of<typename X::value_type>)
[[nodiscard]] auto retyped(X const& tensor) {
  using Space = typename X::memory_space;
  auto const& local = local_part(tensor);
  std::shared_ptr<U> elements(local.storage(), reinterpret_cast<U*>(local.data()));
  return with_local_part(tensor, Tensor<U, Space>::view(local.shape(), std::move(elements)));
}

}  // namespace v0
}  // namespace shardmesh
