// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include <shardmesh/core/dtype.hpp>

namespace shardmesh {
inline namespace v0 {

/// The binary interface of DLPack 1.x (github.com/dmlc/dlpack, include/dlpack/dlpack.h), declared here
/// because no package has it: Debian's is of before the versioned form, and frameworks carry copies in
/// places of their own. Whoever has that header uses its types: `from_dlpack` and `to_dlpack` take them
/// as well as these, which are laid out alike.
namespace dlpack {

/// The version of the interface that a tensor is written in.
struct Version {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
};

/// Where the elements lie.
struct Device {
  std::int32_t device_type = 0;  ///< a `DeviceType`
  std::int32_t device_id = 0;
};

/// An element type.
struct DataType {
  std::uint8_t code = 0;  ///< a `TypeCode`
  std::uint8_t bits = 0;  ///< of one number
  std::uint16_t lanes = 0;
  [[nodiscard]] friend bool operator==(DataType const&, DataType const&) = default;
};

/// A strided array that somebody else owns.
struct Tensor {
  void* data = nullptr;
  Device device;
  std::int32_t ndim = 0;
  DataType dtype;
  std::int64_t* shape = nullptr;
  std::int64_t* strides = nullptr;  ///< in elements; null: row-major
  std::uint64_t byte_offset = 0;    ///< of the first element, from `data`
};

/// The form of before version 1.0.
struct ManagedTensor {
  Tensor dl_tensor;
  void* manager_ctx = nullptr;
  void (*deleter)(ManagedTensor*) = nullptr;
};

/// The form since version 1.0.
struct ManagedTensorVersioned {
  Version version;
  void* manager_ctx = nullptr;
  void (*deleter)(ManagedTensorVersioned*) = nullptr;
  std::uint64_t flags = 0;
  Tensor dl_tensor;
};

static_assert(sizeof(void*) == 8 && sizeof(DataType) == 4 && sizeof(Device) == 8);
static_assert(offsetof(Tensor, device) == 8 && offsetof(Tensor, ndim) == 16 &&
              offsetof(Tensor, dtype) == 20 && offsetof(Tensor, shape) == 24 &&
              offsetof(Tensor, strides) == 32 && offsetof(Tensor, byte_offset) == 40 &&
              sizeof(Tensor) == 48);
static_assert(offsetof(ManagedTensor, manager_ctx) == 48 &&
              offsetof(ManagedTensor, deleter) == 56 && sizeof(ManagedTensor) == 64);
static_assert(offsetof(ManagedTensorVersioned, manager_ctx) == 8 &&
              offsetof(ManagedTensorVersioned, deleter) == 16 &&
              offsetof(ManagedTensorVersioned, flags) == 24 &&
              offsetof(ManagedTensorVersioned, dl_tensor) == 32 &&
              sizeof(ManagedTensorVersioned) == 80);

/// Kinds of memory that are known here.
enum class DeviceType : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };

/// Kinds of numbers.
enum class TypeCode : std::uint8_t {
  integer = 0,
  unsigned_integer = 1,
  floating = 2,
  bfloat = 4,
  complex = 5,
  boolean = 6,
  float8_e4m3fn = 10,
  float8_e4m3fnuz = 11,
  float8_e5m2 = 12,
  float8_e5m2fnuz = 13,
  float8_e8m0fnu = 14,
  float6_e2m3fn = 15,
  float6_e3m2fn = 16,
  float4_e2m1fn = 17,
};

/// Who receives the tensor must not write to it.
inline constexpr std::uint64_t read_only_flag = 1;
inline constexpr std::uint64_t padded_flag = 4;  ///< numbers of less than 8 bits lie in a byte each

/// What to_dlpack writes: the version that brought the small floating-point numbers.
inline constexpr Version written_version{1, 1};

/// The DLPack type of an element. Packed numbers are the lanes of one element, as PyTorch has it.
[[nodiscard]] constexpr DataType data_type(DType dtype) noexcept {
  auto const number = [](TypeCode code, unsigned bits, unsigned lanes = 1) {
    return DataType{static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits),
                    static_cast<std::uint16_t>(lanes)};
  };
  // clang-format off
  switch (dtype) {
    case DType::float32: return number(TypeCode::floating, 32);
    case DType::float64: return number(TypeCode::floating, 64);
    case DType::float16: return number(TypeCode::floating, 16);
    case DType::bfloat16: return number(TypeCode::bfloat, 16);
    case DType::int8: return number(TypeCode::integer, 8);
    case DType::uint8: return number(TypeCode::unsigned_integer, 8);
    case DType::int16: return number(TypeCode::integer, 16);
    case DType::uint16: return number(TypeCode::unsigned_integer, 16);
    case DType::int32: return number(TypeCode::integer, 32);
    case DType::uint32: return number(TypeCode::unsigned_integer, 32);
    case DType::int64: return number(TypeCode::integer, 64);
    case DType::uint64: return number(TypeCode::unsigned_integer, 64);
    case DType::boolean: return number(TypeCode::boolean, 8);
    case DType::float8_e4m3fn: return number(TypeCode::float8_e4m3fn, 8);
    case DType::float8_e5m2: return number(TypeCode::float8_e5m2, 8);
    case DType::float8_e4m3fnuz: return number(TypeCode::float8_e4m3fnuz, 8);
    case DType::float8_e5m2fnuz: return number(TypeCode::float8_e5m2fnuz, 8);
    case DType::float8_e8m0fnu: return number(TypeCode::float8_e8m0fnu, 8);
    case DType::complex64: return number(TypeCode::complex, 64);
    case DType::complex128: return number(TypeCode::complex, 128);
    case DType::float4_e2m1fn_x2: return number(TypeCode::float4_e2m1fn, 4, 2);
    case DType::float6_e2m3fn_x4: return number(TypeCode::float6_e2m3fn, 6, 4);
    case DType::float6_e3m2fn_x4: break;
  }
  // clang-format on
  return number(TypeCode::float6_e3m2fn, 6, 4);
}

/// The element type that a DLPack type is; nothing if there is none.
[[nodiscard]] constexpr std::optional<DType> dtype_from(DataType const& type) noexcept {
  for (DTypeInfo const& info : dtype_table) {
    if (data_type(info.dtype) == type) {
      return info.dtype;
    }
  }
  return std::nullopt;
}

}  // namespace dlpack
}  // namespace v0
}  // namespace shardmesh
