// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>

#include <shardmesh/core/dtype.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Has PyTorch the element type? It has no numbers of six bits.
[[nodiscard]] constexpr bool is_torch_dtype(DType dtype) noexcept {
  return dtype != DType::float6_e2m3fn_x4 && dtype != DType::float6_e3m2fn_x4;
}

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
    if (info.name == name && is_torch_dtype(info.dtype)) {
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

/// Is `torch.<name>` an element type that this library has not, now or in a PyTorch to come? All that
/// there were have the name of a kind of number with a width, as in complex32, quint4x2, bits8.
[[nodiscard]] constexpr bool is_unsupported_torch_dtype(std::string_view name) noexcept {
  constexpr std::array<std::string_view, 8> kinds{"int",  "uint",  "float", "bfloat",
                                                  "qint", "quint", "bits",  "complex"};
  if (dtype_of_torch_name(name)) {
    return false;
  }
  std::size_t const width = name.find_first_of("0123456789");
  std::string_view const kind = name.substr(0, std::min(width, name.size()));
  bool const has_width =
      width != std::string_view::npos &&
      std::find(kinds.begin(), kinds.end(), kind) != kinds.end() &&
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string_view::npos;
  return has_width || name == "chalf";
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

/// The storage class of `dtype`; empty for the types that PyTorch stores untyped (float8, float4, uint16
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
