// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// A feed-forward block, cut for tensor parallelism or whole: loops, and gradients by hand.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include <shardmesh/tensor/tensor.hpp>

namespace ff {

constexpr std::size_t width = 8;
constexpr std::size_t hidden = 16;

/// y = down relu(up x). A rank has some rows of `up`, and the columns of `down` that go with them.
struct Block {
  using parameter_type = shardmesh::Tensor<float>;
  parameter_type up;    // (hidden, width)
  parameter_type down;  // (width, hidden)
  static constexpr std::array member_names{"up", "down"};
};

inline Block initialised() {
  Block b{shardmesh::Tensor<float>({hidden, width}), shardmesh::Tensor<float>({width, hidden})};
  for (auto* weight : {&b.up, &b.down}) {
    for (std::size_t i = 0; i < weight->span().size(); ++i) {
      weight->span()[i] = 0.3F * std::sin(static_cast<float>(3 * i + 1));
    }
  }
  return b;
}

/// A vector of the data; the block learns to turn them round.
inline std::array<float, width> input(int number) {
  std::array<float, width> x{};
  for (std::size_t i = 0; i < width; ++i) {
    x[i] = std::cos(static_cast<float>(number * 5) + static_cast<float>(i));
  }
  return x;
}

/// The loss of one vector; its gradients for the part of the block that is here are added to `to`.
/// @param sum  adds the terms of the output that other ranks have.
template <class Sum>
float learn(Block const& part, std::array<float, width> const& x, Sum sum, Block& to) {
  auto const rows = static_cast<std::size_t>(part.up.shape()[0]);
  std::vector<float> h(rows);
  auto terms = shardmesh::Tensor<float>::zeros({width});
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t i = 0; i < width; ++i) {
      h[r] += part.up.span()[r * width + i] * x[i];
    }
    h[r] = std::max(h[r], 0.0F);
    for (std::size_t o = 0; o < width; ++o) {
      terms.span()[o] += part.down.span()[o * rows + r] * h[r];
    }
  }
  auto const y = sum(terms);
  float loss = 0;
  for (std::size_t o = 0; o < width; ++o) {
    float const error = y.span()[o] - x[width - 1 - o];
    loss += error * error;
    for (std::size_t r = 0; r < rows; ++r) {
      to.down.span()[o * rows + r] += 2 * error * h[r];
      for (std::size_t i = 0; h[r] > 0 && i < width; ++i) {
        to.up.span()[r * width + i] += 2 * error * part.down.span()[o * rows + r] * x[i];
      }
    }
  }
  return loss;
}

}  // namespace ff
