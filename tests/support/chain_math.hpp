// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Gradients of models that are a chain of linear layers, some with a ReLU behind, on whole parameters
// in host memory: forward, sum of all outputs, backward.

#include <cstddef>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/state/visit.hpp>

#include "../../examples/support/dense_math.hpp"
#include "../../examples/support/models.hpp"

namespace test {

namespace sm = shardmesh;

using HostTensor = sm::Tensor<float>;

/// Is there a ReLU behind each linear layer?
inline std::vector<bool> relus_of(models::Dense<HostTensor> const&) {
  return {true, true, true, false};
}
inline std::vector<bool> relus_of(models::MlpStack<HostTensor> const&) {
  return {true, true, true, true, false, true, true};
}

/// The tensors of a model in host memory, in order.
template <class Model>
std::vector<HostTensor> host_leaves(Model& model) {
  std::vector<HostTensor> found;
  sm::for_each_leaf(model, [&found]<class Leaf>(std::string const&, Leaf& leaf) {
    if constexpr (sm::AnyPlainTensor<Leaf>) {
      found.push_back(sm::to_host(leaf));
    }
  });
  return found;
}

/// Gradients of the sum of the outputs, in the order of the parameters (weight, bias of each layer).
inline std::vector<HostTensor> chain_gradients(std::vector<HostTensor> const& parameters,
                                               std::vector<bool> const& relus,
                                               models::Matrix const& input,
                                               std::size_t batch) {
  std::vector<models::Linear<HostTensor>> layers;
  for (std::size_t i = 0; i < parameters.size(); i += 2) {
    layers.push_back({parameters[i], parameters[i + 1]});
  }
  std::vector<models::Matrix> values{input};
  for (std::size_t i = 0; i < layers.size(); ++i) {
    auto y = models::apply(layers[i], values.back(), batch);
    values.push_back(relus[i] ? models::relu(std::move(y)) : y);
  }
  models::Matrix slope(values.back().size(), 1.0F);
  std::vector<HostTensor> gradients(parameters.size());
  for (std::size_t i = layers.size(); i-- > 0;) {
    if (relus[i]) {
      slope = models::relu_backward(values[i + 1], slope);
    }
    models::Linear<HostTensor> gradient;
    slope = models::apply_backward(layers[i], values[i], slope, batch, gradient);
    gradients[2 * i] = gradient.weight;
    gradients[2 * i + 1] = gradient.bias;
  }
  return gradients;
}

/// Random rows, the same for a seed everywhere.
inline models::Matrix random_rows(unsigned seed, std::size_t batch, sm::index_t width) {
  std::mt19937 random(seed);
  models::Matrix rows(batch * static_cast<std::size_t>(width));
  for (float& one : rows) {
    one = static_cast<float>(random() % 2001) / 1000.0F - 1.0F;
  }
  return rows;
}

/// Makes tensors of random values, the same for a seed everywhere.
template <class Space>
auto tensor_maker(unsigned seed) {
  return [random = std::mt19937(seed)](sm::Shape const& shape) mutable {
    HostTensor tensor(shape);
    for (float& value : tensor.span()) {
      value = static_cast<float>(random() % 2001) / 1000.0F - 1.0F;
    }
    auto copy = tensor.template clone<Space>();
    typename Space::Stream{}.synchronize();
    return copy;
  };
}

/// The gradients of one rank for a model whose whole parameters are there, in the model's memory.
template <class Space, template <class> class Model>
std::vector<sm::Tensor<float, Space>> model_gradients(Model<sm::Tensor<float, Space>>& model,
                                                      models::Matrix const& input,
                                                      std::size_t batch) {
  auto const relus = relus_of(Model<HostTensor>{});
  std::vector<sm::Tensor<float, Space>> gradients;
  for (auto const& one : chain_gradients(host_leaves(model), relus, input, batch)) {
    gradients.push_back(one.template clone<Space>());
  }
  typename Space::Stream{}.synchronize();
  return gradients;
}

/// Forward, sum, backward of a sharded model, each rank on rows of its own; the reduced gradients.
template <class Space, class Net>
auto sharded_gradients(Net& net, unsigned seed) {
  constexpr std::size_t batch = 4;
  net.unshard();
  auto const width = host_leaves(net.model()).front().shape()[1];
  auto const gradients =
      model_gradients<Space>(net.model(), random_rows(seed, batch, width), batch);
  net.reshard();
  return net.reduce_gradients(gradients);
}

}  // namespace test
