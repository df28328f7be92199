// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/memory/cuda/stream.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// Numbers in memory that streams write and wait for, in order with their other work: what orders streams of
/// different processes, and what, unlike an event, the host can end.
class StreamValues {
 public:
  /// Of the process; the driver is asked once.
  [[nodiscard]] static StreamValues const& get() {
    static StreamValues const values;
    return values;
  }

  /// Does the driver have them?
  [[nodiscard]] explicit operator bool() const noexcept { return give_ != nullptr; }

  /// Numbers to write and to wait for, one after the other, as one call.
  class Batch {
   public:
    /// The stream writes `number` behind its work, and what that has written is seen first.
    /// @param place  in host memory that is registered with CUDA.
    void write(std::uint64_t* place, std::uint64_t number) {
      CUstreamBatchMemOpParams& one = operations_.emplace_back();
      one.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
      one.writeValue.address = address(place);
      one.writeValue.value64 = number;
      one.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
    }
    /// The stream waits until the place holds `number` or more.
    void wait(std::uint64_t const* place, std::uint64_t number) {
      CUstreamBatchMemOpParams& one = operations_.emplace_back();
      one.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_64;
      one.waitValue.address = address(place);
      one.waitValue.value64 = number;
      one.waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
    }
    /// Gives them to the stream; the batch is empty then.
    /// @throws DeviceError
    void give(CudaStream stream) {
      if (!operations_.empty()) {
        check(get().give_(stream.handle, static_cast<unsigned>(operations_.size()),
                          operations_.data(), 0));
        operations_.clear();
      }
    }

   private:
    std::vector<CUstreamBatchMemOpParams> operations_;
  };

 private:
  using Give = CUresult(CUDAAPI*)(CUstream, unsigned, CUstreamBatchMemOpParams*, unsigned);

  StreamValues() {
    constexpr char const* name = "cuStreamBatchMemOp";
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    cudaError_t const status =
        cudaGetDriverEntryPointByVersion(name, &function, 11070, cudaEnableDefault, &found);
#else
    cudaError_t const status = cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &found);
#endif
    static_cast<void>(cudaGetLastError());
    if (status == cudaSuccess && found == cudaDriverEntryPointSuccess) {
      give_ = reinterpret_cast<Give>(function);
    }
  }

  [[nodiscard]] static CUdeviceptr address(std::uint64_t const* place) noexcept {
    return reinterpret_cast<CUdeviceptr>(place);
  }

  static void check(CUresult status) {
    if (status != CUDA_SUCCESS) {
      throw DeviceError(static_cast<int>(status),
                        detail::concat("shardmesh: cuStreamBatchMemOp failed with CUresult ",
                                       std::to_string(static_cast<int>(status))));
    }
  }

  Give give_ = nullptr;
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
