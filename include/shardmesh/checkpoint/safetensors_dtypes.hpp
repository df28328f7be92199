// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/shape.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// An element type of safetensors. Shapes in a file count single numbers; where those have less than
/// eight bits, a tensor here counts the elements that they are packed in, as in PyTorch: the last
/// dimension of a file's F4 [2, 8] is halved, float4_e2m1fn_x2 (2, 4).
struct SafetensorsDtype {
  std::string_view name;
  DType dtype;
  std::uint64_t bits;  ///< of a number
  index_t packed = 1;  ///< numbers in an element
};

/// All that the format has. Source: the enumeration `Dtype` of the reference implementation, 0.8.
inline constexpr std::array<SafetensorsDtype, 22> safetensors_dtypes{{
    {"F32", DType::float32, 32},
    {"F64", DType::float64, 64},
    {"F16", DType::float16, 16},
    {"BF16", DType::bfloat16, 16},
    {"I8", DType::int8, 8},
    {"U8", DType::uint8, 8},
    {"I16", DType::int16, 16},
    {"U16", DType::uint16, 16},
    {"I32", DType::int32, 32},
    {"U32", DType::uint32, 32},
    {"I64", DType::int64, 64},
    {"U64", DType::uint64, 64},
    {"BOOL", DType::boolean, 8},
    {"F8_E4M3", DType::float8_e4m3fn, 8},
    {"F8_E5M2", DType::float8_e5m2, 8},
    {"F8_E4M3FNUZ", DType::float8_e4m3fnuz, 8},
    {"F8_E5M2FNUZ", DType::float8_e5m2fnuz, 8},
    {"F8_E8M0", DType::float8_e8m0fnu, 8},
    {"C64", DType::complex64, 64},
    {"F4", DType::float4_e2m1fn_x2, 4, 2},
    {"F6_E2M3", DType::float6_e2m3fn_x4, 6, 4},
    {"F6_E3M2", DType::float6_e3m2fn_x4, 6, 4},
}};

/// nullptr for a name that the format has not.
[[nodiscard]] constexpr SafetensorsDtype const* find_safetensors_dtype(
    std::string_view name) noexcept {
  auto const* const found = std::find_if(safetensors_dtypes.begin(), safetensors_dtypes.end(),
                                         [name](auto const& one) { return one.name == name; });
  return found == safetensors_dtypes.end() ? nullptr : found;
}

/// nullptr for a type that the format has not.
[[nodiscard]] constexpr SafetensorsDtype const* find_safetensors_dtype(DType dtype) noexcept {
  auto const* const found = std::find_if(safetensors_dtypes.begin(), safetensors_dtypes.end(),
                                         [dtype](auto const& one) { return one.dtype == dtype; });
  return found == safetensors_dtypes.end() ? nullptr : found;
}

/// The shape that a file says, which counts numbers, of a tensor that counts elements.
/// @pre a packed type has a dimension.
/// @throws ShapeError if it does not fit 63 bits.
[[nodiscard]] inline Shape shape_in_file(SafetensorsDtype const& dtype, Shape shape) {
  if (dtype.packed > 1) {
    shape.back() = checked_mul(shape.back(), dtype.packed);
  }
  return shape;
}

/// The shape of the tensor for a shape that a file says; nothing if its rows do not fill whole elements.
[[nodiscard]] inline std::optional<Shape> shape_in_memory(SafetensorsDtype const& dtype,
                                                          Shape shape) {
  if (dtype.packed > 1) {
    if (shape.empty() || shape.back() % dtype.packed != 0) {
      return std::nullopt;
    }
    shape.back() /= dtype.packed;
  }
  return shape;
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
