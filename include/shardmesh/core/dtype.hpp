// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <shardmesh/core/complex.hpp>
#include <shardmesh/core/float_types.hpp>

namespace shardmesh {
inline namespace v0 {

/// Element types, with PyTorch's names. Numbers of less than eight bits come packed, in the smallest
/// number of whole bytes; shapes count what is packed: a row of eight four-bit numbers is four elements
/// of float4_e2m1fn_x2. PyTorch has no numbers of six bits; those of safetensors are named in its manner.
enum class DType : std::uint8_t {
  float32,
  float64,
  float16,
  bfloat16,
  int8,
  uint8,
  int16,
  uint16,
  int32,
  uint32,
  int64,
  uint64,
  boolean,
  float8_e4m3fn,
  float8_e5m2,
  float8_e4m3fnuz,
  float8_e5m2fnuz,
  float8_e8m0fnu,
  complex64,
  complex128,
  float4_e2m1fn_x2,
  float6_e2m3fn_x4,
  float6_e3m2fn_x4,
};

/// What is known of one element type.
struct DTypeInfo {
  DType dtype;
  std::string_view name;  ///< PyTorch's name, `torch.<name>`, if it has the type
  std::size_t size;       ///< bytes per element
};

/// Every element type, in the order of the enumeration.
inline constexpr std::array<DTypeInfo, 23> dtype_table{{
    {DType::float32, "float32", 4},
    {DType::float64, "float64", 8},
    {DType::float16, "float16", 2},
    {DType::bfloat16, "bfloat16", 2},
    {DType::int8, "int8", 1},
    {DType::uint8, "uint8", 1},
    {DType::int16, "int16", 2},
    {DType::uint16, "uint16", 2},
    {DType::int32, "int32", 4},
    {DType::uint32, "uint32", 4},
    {DType::int64, "int64", 8},
    {DType::uint64, "uint64", 8},
    {DType::boolean, "bool", 1},
    {DType::float8_e4m3fn, "float8_e4m3fn", 1},
    {DType::float8_e5m2, "float8_e5m2", 1},
    {DType::float8_e4m3fnuz, "float8_e4m3fnuz", 1},
    {DType::float8_e5m2fnuz, "float8_e5m2fnuz", 1},
    {DType::float8_e8m0fnu, "float8_e8m0fnu", 1},
    {DType::complex64, "complex64", 8},
    {DType::complex128, "complex128", 16},
    {DType::float4_e2m1fn_x2, "float4_e2m1fn_x2", 1},
    {DType::float6_e2m3fn_x4, "float6_e2m3fn_x4", 3},
    {DType::float6_e3m2fn_x4, "float6_e3m2fn_x4", 3},
}};

/// Bytes per element.
[[nodiscard]] constexpr std::size_t size_of(DType dtype) noexcept {
  return dtype_table[static_cast<std::size_t>(dtype)].size;
}

/// PyTorch's name without the `torch.` prefix.
[[nodiscard]] constexpr std::string_view to_string(DType dtype) noexcept {
  return dtype_table[static_cast<std::size_t>(dtype)].name;
}

/// Does an element hold several numbers?
[[nodiscard]] constexpr bool is_packed(DType dtype) noexcept {
  return dtype == DType::float4_e2m1fn_x2 || dtype == DType::float6_e2m3fn_x4 ||
         dtype == DType::float6_e3m2fn_x4;
}

/// Can elements be added and compared? Packed numbers and block scales cannot.
[[nodiscard]] constexpr bool has_arithmetic(DType dtype) noexcept {
  return dtype != DType::float8_e8m0fnu && !is_packed(dtype);
}

namespace detail {

template <class T>
struct DTypeOf;

template <DType D>
using DTypeConstant = std::integral_constant<DType, D>;

// clang-format off
template <> struct DTypeOf<float> : DTypeConstant<DType::float32> {};
template <> struct DTypeOf<double> : DTypeConstant<DType::float64> {};
template <> struct DTypeOf<Float16> : DTypeConstant<DType::float16> {};
template <> struct DTypeOf<BFloat16> : DTypeConstant<DType::bfloat16> {};
template <> struct DTypeOf<std::int8_t> : DTypeConstant<DType::int8> {};
template <> struct DTypeOf<std::uint8_t> : DTypeConstant<DType::uint8> {};
template <> struct DTypeOf<std::int16_t> : DTypeConstant<DType::int16> {};
template <> struct DTypeOf<std::uint16_t> : DTypeConstant<DType::uint16> {};
template <> struct DTypeOf<std::int32_t> : DTypeConstant<DType::int32> {};
template <> struct DTypeOf<std::uint32_t> : DTypeConstant<DType::uint32> {};
template <> struct DTypeOf<std::int64_t> : DTypeConstant<DType::int64> {};
template <> struct DTypeOf<std::uint64_t> : DTypeConstant<DType::uint64> {};
template <> struct DTypeOf<bool> : DTypeConstant<DType::boolean> {};
template <> struct DTypeOf<Float8E4M3fn> : DTypeConstant<DType::float8_e4m3fn> {};
template <> struct DTypeOf<Float8E5M2> : DTypeConstant<DType::float8_e5m2> {};
template <> struct DTypeOf<Float8E4M3fnuz> : DTypeConstant<DType::float8_e4m3fnuz> {};
template <> struct DTypeOf<Float8E5M2fnuz> : DTypeConstant<DType::float8_e5m2fnuz> {};
template <> struct DTypeOf<Float8E8M0fnu> : DTypeConstant<DType::float8_e8m0fnu> {};
template <> struct DTypeOf<Float4E2M1fnX2> : DTypeConstant<DType::float4_e2m1fn_x2> {};
template <> struct DTypeOf<Float6E2M3fnX4> : DTypeConstant<DType::float6_e2m3fn_x4> {};
template <> struct DTypeOf<Float6E3M2fnX4> : DTypeConstant<DType::float6_e3m2fn_x4> {};
template <ComplexOf<float> T> struct DTypeOf<T> : DTypeConstant<DType::complex64> {};
template <ComplexOf<double> T> struct DTypeOf<T> : DTypeConstant<DType::complex128> {};
// clang-format on

}  // namespace detail

/// A C++ type that tensors can hold. Complex numbers may be those of any library, see `ComplexOf`.
template <class T>
concept Element = requires { detail::DTypeOf<T>::value; } && std::is_trivially_copyable_v<T>;

/// The `DType` of a C++ type.
template <Element T>
inline constexpr DType dtype_of = detail::DTypeOf<T>::value;

/// Calls `f(std::type_identity<T>{})` with the C++ type of `dtype`: the one place where a run-time
/// element type becomes a compile-time one. Complex numbers come as `Complex`.
template <class F>
constexpr decltype(auto) visit_dtype(DType dtype, F&& f) {
  // clang-format off
  switch (dtype) {
    case DType::float32: return f(std::type_identity<float>{});
    case DType::float64: return f(std::type_identity<double>{});
    case DType::float16: return f(std::type_identity<Float16>{});
    case DType::bfloat16: return f(std::type_identity<BFloat16>{});
    case DType::int8: return f(std::type_identity<std::int8_t>{});
    case DType::uint8: return f(std::type_identity<std::uint8_t>{});
    case DType::int16: return f(std::type_identity<std::int16_t>{});
    case DType::uint16: return f(std::type_identity<std::uint16_t>{});
    case DType::int32: return f(std::type_identity<std::int32_t>{});
    case DType::uint32: return f(std::type_identity<std::uint32_t>{});
    case DType::int64: return f(std::type_identity<std::int64_t>{});
    case DType::uint64: return f(std::type_identity<std::uint64_t>{});
    case DType::boolean: return f(std::type_identity<bool>{});
    case DType::float8_e4m3fn: return f(std::type_identity<Float8E4M3fn>{});
    case DType::float8_e5m2: return f(std::type_identity<Float8E5M2>{});
    case DType::float8_e4m3fnuz: return f(std::type_identity<Float8E4M3fnuz>{});
    case DType::float8_e5m2fnuz: return f(std::type_identity<Float8E5M2fnuz>{});
    case DType::float8_e8m0fnu: return f(std::type_identity<Float8E8M0fnu>{});
    case DType::float4_e2m1fn_x2: return f(std::type_identity<Float4E2M1fnX2>{});
    case DType::float6_e2m3fn_x4: return f(std::type_identity<Float6E2M3fnX4>{});
    case DType::float6_e3m2fn_x4: return f(std::type_identity<Float6E3M2fnX4>{});
    case DType::complex64: return f(std::type_identity<Complex<float>>{});
    case DType::complex128: break;
  }
  // clang-format on
  return f(std::type_identity<Complex<double>>{});
}

}  // namespace v0
}  // namespace shardmesh
