// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Forward and backward of the Dense model in device memory: cuBLAS for the products, in float32 throughout,
// loops of kernels.cu for the rest. Link cublas.

#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include <cublas_v2.h>

#include <shardmesh/core/error.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/tensor/tensor.hpp>

#include "dense_kernels.hpp"
#include "dense_math.hpp"
#include "models.hpp"

namespace models {

using DeviceTensor = shardmesh::Tensor<float, shardmesh::CudaMemory>;

/// `dense_loss` on the device that is current where the object is made. One thread at a time.
template <>
class DenseMath<shardmesh::CudaMemory> {
 public:
  using Stream = shardmesh::CudaStream;

  /// @throws shardmesh::DeviceError
  DenseMath() {
    cublasHandle_t handle = nullptr;
    check(cublasCreate(&handle), "cublasCreate");
    handle_.reset(handle);
    check(cublasSetMathMode(handle, CUBLAS_PEDANTIC_MATH), "cublasSetMathMode");
  }

  /// Parameters and gradients stay on the device, only the batch goes there, and the loss comes back.
  /// @param x (rows, 8) and `target` (rows, 8), on the host.
  /// @throws shardmesh::DeviceError
  [[nodiscard]] LossAndGradients<DeviceTensor> loss(Dense<DeviceTensor> const& model,
                                                    Matrix const& x,
                                                    Matrix const& target,
                                                    std::size_t rows,
                                                    Stream stream = {}) {
    check(cublasSetStream(handle_.get(), stream.handle), "cublasSetStream");
    stream_ = stream;
    auto const batch = static_cast<index_t>(rows);
    DeviceTensor const input = DeviceTensor::from({batch, 8}, x, stream);
    DeviceTensor const wanted = DeviceTensor::from({batch, 8}, target, stream);
    DeviceTensor const h1 = apply(model.net1, input, true);
    DeviceTensor const h2 = apply(model.net2, h1, true);
    DeviceTensor const h3 = apply(model.net3, h2, true);
    DeviceTensor const y = apply(model.net4, h3, false);

    DeviceTensor const error(y.shape(), stream);
    DeviceTensor const dy(y.shape(), stream);
    auto const count = static_cast<float>(y.size());
    for_each(y.size(), ErrorGradient{y.data(), wanted.data(), error.data(), dy.data(), count});
    LossAndGradients<DeviceTensor> result;
    check(cublasSdot(handle_.get(), static_cast<int>(y.size()), error.data(), 1, error.data(), 1,
                     &result.loss),
          "cublasSdot");
    result.loss /= count;

    Dense<DeviceTensor> gradient;
    DeviceTensor const d3 = relu_backward(h3, apply_backward(model.net4, h3, dy, gradient.net4));
    DeviceTensor const d2 = relu_backward(h2, apply_backward(model.net3, h2, d3, gradient.net3));
    DeviceTensor const d1 = relu_backward(h1, apply_backward(model.net2, h1, d2, gradient.net2));
    apply_backward(model.net1, input, d1, gradient.net1);
    for (auto const* layer : {&gradient.net1, &gradient.net2, &gradient.net3, &gradient.net4}) {
      result.gradients.push_back(layer->weight);
      result.gradients.push_back(layer->bias);
    }
    return result;
  }

 private:
  static void check(cublasStatus_t status, char const* call) {
    if (status != CUBLAS_STATUS_SUCCESS) {
      throw shardmesh::DeviceError(static_cast<int>(status),
                                   std::string("models: ") + call +
                                       " failed: " + cublasGetStatusString(status));
    }
  }

  template <class F>
  void for_each(index_t count, F const& f) const {
    shardmesh::CudaMemory::for_each_index(count, f, stream_);
  }

  /// c (n, m) = a b, row-major, which is c^T = b^T a^T in the column-major words of cuBLAS.
  /// @param a (n, k), or its transpose (k, n); `b`: (k, m), or its transpose (m, k).
  void multiply(DeviceTensor const& a,
                bool a_transposed,
                DeviceTensor const& b,
                bool b_transposed,
                DeviceTensor const& c) {
    auto const extent = [](DeviceTensor const& matrix, std::size_t d) {
      return static_cast<int>(matrix.shape()[d]);
    };
    float const one = 1;
    float const zero = 0;
    check(cublasSgemm(handle_.get(), b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                      a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, extent(c, 1), extent(c, 0),
                      extent(a, a_transposed ? 0 : 1), &one, b.data(), extent(b, 1), a.data(),
                      extent(a, 1), &zero, c.data(), extent(c, 1)),
          "cublasSgemm");
  }

  /// y = x W^T + b, or the positive part of it.
  DeviceTensor apply(Linear<DeviceTensor> const& layer, DeviceTensor const& x, bool relu) {
    DeviceTensor y({x.shape()[0], layer.weight.shape()[0]}, stream_);
    multiply(x, false, layer.weight, true, y);
    for_each(y.size(), AddBias{y.data(), layer.bias.data(), y.shape()[1], relu});
    return y;
  }

  /// Gradients of a linear layer for the gradient `dy` of its output; returns that of its input.
  DeviceTensor apply_backward(Linear<DeviceTensor> const& layer,
                              DeviceTensor const& x,
                              DeviceTensor const& dy,
                              Linear<DeviceTensor>& gradient) {
    gradient = {DeviceTensor(layer.weight.shape(), stream_),
                DeviceTensor(layer.bias.shape(), stream_)};
    multiply(dy, true, x, false, gradient.weight);
    for_each(dy.shape()[1],
             ColumnSum{dy.data(), gradient.bias.data(), dy.shape()[0], dy.shape()[1]});
    DeviceTensor dx(x.shape(), stream_);
    multiply(dy, false, layer.weight, false, dx);
    return dx;
  }

  DeviceTensor relu_backward(DeviceTensor const& y, DeviceTensor dy) const {
    for_each(y.size(), ReluBackward{y.data(), dy.data()});
    return dy;
  }

  struct Destroy {
    void operator()(cublasHandle_t handle) const noexcept { cublasDestroy(handle); }
  };
  std::unique_ptr<std::remove_pointer_t<cublasHandle_t>, Destroy> handle_;
  Stream stream_;
};

}  // namespace models
