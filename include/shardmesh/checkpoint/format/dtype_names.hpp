// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include <shardmesh/core/dtype.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// The element type of `torch.<name>`, PyTorch's short aliases included.
[[nodiscard]] constexpr std::optional<DType> dtype_of_torch_name(std::string_view name) noexcept {
  constexpr std::array<std::pair<std::string_view, DType>, 8> aliases{{
      {"float", DType::float32},
      {"double", DType::float64},
      {"half", DType::float16},
      {"long", DType::int64},
      {"int", DType::int32},
      {"short", DType::int16},
      {"cfloat", DType::complex64},
      {"cdouble", DType::complex128},
  }};
  for (DTypeInfo const& info : dtype_table) {
    if (info.name == name) {
      return info.dtype;
    }
  }
  for (auto const& [alias, dtype] : aliases) {
    if (alias == name) {
      return dtype;
    }
  }
  return std::nullopt;
}

/// Is `torch.<name>` an element type that PyTorch has and this library has not?
[[nodiscard]] constexpr bool is_unsupported_torch_dtype(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 13> names{
      "complex32", "chalf", "float4_e2m1fn_x2", "bits8",  "bits16",   "bits1x8", "bits2x4",
      "bits4x2",   "qint8", "quint8",           "qint32", "quint4x2", "quint2x4"};
  for (std::string_view const known : names) {
    if (known == name) {
      return true;
    }
  }
  return false;
}

/// The storage classes `torch.<name>` that stand for an element type in a tensor's pickle.
inline constexpr std::array<std::pair<std::string_view, DType>, 12> storage_class_table{{
    {"FloatStorage", DType::float32},
    {"DoubleStorage", DType::float64},
    {"HalfStorage", DType::float16},
    {"BFloat16Storage", DType::bfloat16},
    {"CharStorage", DType::int8},
    {"ByteStorage", DType::uint8},
    {"ShortStorage", DType::int16},
    {"IntStorage", DType::int32},
    {"LongStorage", DType::int64},
    {"BoolStorage", DType::boolean},
    {"ComplexFloatStorage", DType::complex64},
    {"ComplexDoubleStorage", DType::complex128},
}};

/// The storage class of `dtype`; empty for the types that PyTorch stores untyped (float8, uint16
/// and wider unsigned ones).
[[nodiscard]] constexpr std::string_view storage_class_of(DType dtype) noexcept {
  for (auto const& [name, of] : storage_class_table) {
    if (of == dtype) {
      return name;
    }
  }
  return {};
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
