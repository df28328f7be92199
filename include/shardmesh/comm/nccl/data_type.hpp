// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <optional>
#include <string>

#include <nccl.h>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/reduce_op.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// NCCL's name of an element type, if it has one. (What has none still travels, as bytes.)
[[nodiscard]] constexpr std::optional<ncclDataType_t> data_type(DType dtype) noexcept {
  // clang-format off
  switch (dtype) {
    case DType::float32: return ncclFloat32;
    case DType::float64: return ncclFloat64;
    case DType::float16: return ncclFloat16;
    case DType::bfloat16: return ncclBfloat16;
    case DType::int8: return ncclInt8;
    case DType::uint8: return ncclUint8;
    case DType::int32: return ncclInt32;
    case DType::uint32: return ncclUint32;
    case DType::int64: return ncclInt64;
    case DType::uint64: return ncclUint64;
    case DType::float8_e4m3fn: return ncclFloat8e4m3;
    case DType::float8_e5m2: return ncclFloat8e5m2;
    case DType::int16:
    case DType::uint16:
    case DType::boolean:
    case DType::float8_e4m3fnuz:
    case DType::float8_e5m2fnuz:
    case DType::float8_e8m0fnu:
    case DType::float4_e2m1fn_x2:
    case DType::float6_e2m3fn_x4:
    case DType::float6_e3m2fn_x4:
    case DType::complex64:
    case DType::complex128: break;
  }
  // clang-format on
  return std::nullopt;
}

/// The type under which NCCL reduces `dtype`.
/// @param what the operation, for the message.
/// @throws UnsupportedError if it does not reduce it.
[[nodiscard]] inline ncclDataType_t reducible_type(DType dtype, char const* what) {
  auto const type = data_type(dtype);
  if (!type) {
    throw UnsupportedError("shardmesh::" + std::string(what) + ": NCCL does not reduce " +
                           std::string(to_string(dtype)) +
                           "; convert the elements, or use redistribute from Partial, which "
                           "reduces with kernels of its own");
  }
  return *type;
}

/// The operation as NCCL names it.
[[nodiscard]] constexpr ncclRedOp_t reduction(ReduceOp op) noexcept {
  switch (op) {
    case ReduceOp::sum:
      return ncclSum;
    case ReduceOp::avg:
      return ncclAvg;
    case ReduceOp::min:
      return ncclMin;
    case ReduceOp::max:
      return ncclMax;
    case ReduceOp::product:
      break;
  }
  return ncclProd;
}

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
