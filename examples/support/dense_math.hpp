// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Forward and backward of the Dense model on whole parameters in host memory: plain loops, gradients
// by hand. The mathematics is the example's business, not the library's.

#include <cstddef>
#include <vector>

#include <shardmesh/tensor/tensor.hpp>

#include "models.hpp"

namespace models {

using HostTensor = shardmesh::Tensor<float>;
using Matrix = std::vector<float>;  // row-major (batch, features)

/// Loss of a batch, and the gradients in the order of the model's parameters.
template <class Tensor>
struct LossAndGradients {
  float loss = 0;
  std::vector<Tensor> gradients;
};

/// y = x W^T + b, of `batch` rows.
inline Matrix apply(Linear<HostTensor> const& layer, Matrix const& x, std::size_t batch) {
  auto const out = static_cast<std::size_t>(layer.weight.shape()[0]);
  auto const in = static_cast<std::size_t>(layer.weight.shape()[1]);
  Matrix y(batch * out);
  for (std::size_t b = 0; b < batch; ++b) {
    for (std::size_t o = 0; o < out; ++o) {
      float sum = layer.bias.span()[o];
      for (std::size_t i = 0; i < in; ++i) {
        sum += x[b * in + i] * layer.weight.span()[o * in + i];
      }
      y[b * out + o] = sum;
    }
  }
  return y;
}

/// Gradients of a linear layer for the gradient `dy` of its output; returns that of its input.
inline Matrix apply_backward(Linear<HostTensor> const& layer,
                             Matrix const& x,
                             Matrix const& dy,
                             std::size_t batch,
                             Linear<HostTensor>& gradient) {
  auto const out = static_cast<std::size_t>(layer.weight.shape()[0]);
  auto const in = static_cast<std::size_t>(layer.weight.shape()[1]);
  gradient = {HostTensor::zeros(layer.weight.shape()), HostTensor::zeros(layer.bias.shape())};
  Matrix dx(batch * in, 0.0F);
  for (std::size_t b = 0; b < batch; ++b) {
    for (std::size_t o = 0; o < out; ++o) {
      float const slope = dy[b * out + o];
      gradient.bias.span()[o] += slope;
      for (std::size_t i = 0; i < in; ++i) {
        gradient.weight.span()[o * in + i] += slope * x[b * in + i];
        dx[b * in + i] += slope * layer.weight.span()[o * in + i];
      }
    }
  }
  return dx;
}

inline Matrix relu(Matrix x) {
  for (float& one : x) {
    one = one > 0 ? one : 0;
  }
  return x;
}

/// Gradient of the input of a ReLU whose output is `y`.
inline Matrix relu_backward(Matrix const& y, Matrix dy) {
  for (std::size_t i = 0; i < dy.size(); ++i) {
    dy[i] = y[i] > 0 ? dy[i] : 0;
  }
  return dy;
}

/// Mean squared error of the model on one batch. The ReLU that opens the last layer does nothing to
/// the output of the ReLU before it.
/// @param x      (batch, 8); `target`: (batch, 8).
inline LossAndGradients<HostTensor> dense_loss(Dense<HostTensor> const& model,
                                               Matrix const& x,
                                               Matrix const& target,
                                               std::size_t batch) {
  Matrix const h1 = relu(apply(model.net1, x, batch));
  Matrix const h2 = relu(apply(model.net2, h1, batch));
  Matrix const h3 = relu(apply(model.net3, h2, batch));
  Matrix const y = apply(model.net4, h3, batch);

  LossAndGradients<HostTensor> result;
  Matrix dy(y.size());
  auto const count = static_cast<float>(y.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    float const error = y[i] - target[i];
    result.loss += error * error / count;
    dy[i] = 2 * error / count;
  }
  Dense<HostTensor> gradient;
  Matrix const d3 = relu_backward(h3, apply_backward(model.net4, h3, dy, batch, gradient.net4));
  Matrix const d2 = relu_backward(h2, apply_backward(model.net3, h2, d3, batch, gradient.net3));
  Matrix const d1 = relu_backward(h1, apply_backward(model.net2, h1, d2, batch, gradient.net2));
  apply_backward(model.net1, x, d1, batch, gradient.net1);
  for (auto* layer : {&gradient.net1, &gradient.net2, &gradient.net3, &gradient.net4}) {
    result.gradients.push_back(layer->weight);
    result.gradients.push_back(layer->bias);
  }
  return result;
}

/// `dense_loss` where the parameters are; dense_math_cuda.hpp has it for device memory.
template <class Space>
class DenseMath;

template <>
class DenseMath<shardmesh::HostMemory> {
 public:
  [[nodiscard]] LossAndGradients<HostTensor> loss(Dense<HostTensor> const& model,
                                                  Matrix const& x,
                                                  Matrix const& target,
                                                  std::size_t batch,
                                                  shardmesh::HostStream = {}) const {
    return dense_loss(model, x, target, batch);
  }
};

/// `dense_loss` on copies in host memory, for a model in any memory: the same bits everywhere.
template <class Space>
[[nodiscard]] LossAndGradients<shardmesh::Tensor<float, Space>> dense_loss_on_host(
    Dense<shardmesh::Tensor<float, Space>> const& model,
    Matrix const& x,
    Matrix const& target,
    std::size_t batch) {
  auto const copy = [](auto const& layer) -> Linear<HostTensor> {
    return {shardmesh::to_host(layer.weight), shardmesh::to_host(layer.bias)};
  };
  auto const result = dense_loss(
      {copy(model.net1), copy(model.net2), copy(model.net3), copy(model.net4)}, x, target, batch);
  LossAndGradients<shardmesh::Tensor<float, Space>> moved;
  moved.loss = result.loss;
  for (HostTensor const& gradient : result.gradients) {
    moved.gradients.push_back(gradient.clone<Space>());
  }
  typename Space::Stream{}.synchronize();  // the host copies end here
  return moved;
}

}  // namespace models
