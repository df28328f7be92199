// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Handwritten digits, and a network that reads them: 64 pixels, 32 hidden numbers, 10 scores.
// Loops, and gradients by hand: mathematics is the program's business, not the library's.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <shardmesh/tensor/tensor.hpp>

namespace digits {

constexpr std::size_t pixels = 64;
constexpr std::size_t hidden = 32;
constexpr std::size_t numbers = 10;

struct Digit {
  std::size_t number = 0;
  std::array<float, pixels> image{};
};

/// @param file  data/make_digits.py says what is in it.
inline std::vector<Digit> read(std::string const& file) {
  std::ifstream in(file);
  std::vector<Digit> all;
  Digit digit;
  for (std::string image; in >> digit.number >> image;) {
    if (digit.number >= numbers || image.size() != pixels) {
      throw std::runtime_error(file + ", line " + std::to_string(all.size() + 1) + " is no digit");
    }
    std::transform(image.begin(), image.end(), digit.image.begin(), [](char c) {
      return static_cast<float>(c <= '9' ? c - '0' : c - 'a' + 10) / 16.0F;
    });
    all.push_back(digit);
  }
  if (all.empty()) {
    throw std::runtime_error(file + " cannot be read, or is empty");
  }
  return all;
}

/// Its weights are zeros: those of gradients. `initialised` has those to begin with.
struct Network {
  using parameter_type = shardmesh::Tensor<float>;
  parameter_type weight1 = parameter_type::zeros({hidden, pixels});
  parameter_type bias1 = parameter_type::zeros({hidden});
  parameter_type weight2 = parameter_type::zeros({numbers, hidden});
  parameter_type bias2 = parameter_type::zeros({numbers});
  static constexpr std::array member_names{"weight1", "bias1", "weight2", "bias2"};
};

/// The same numbers on every rank.
inline Network initialised() {
  Network net;
  std::mt19937 random(1);
  for (auto* weight : {&net.weight1, &net.weight2}) {
    float const scale = 1.0F / std::sqrt(static_cast<float>(weight->shape()[1]));
    for (float& w : weight->span()) {
      w = scale * (static_cast<float>(random() % 2001) / 1000.0F - 1);
    }
  }
  return net;
}

/// What each layer says to one image; the scores are probabilities.
struct Activations {
  std::array<float, hidden> inner{};
  std::array<float, numbers> scores{};
};

inline Activations forward(Network const& net, Digit const& digit) {
  auto const layer = [](auto const& weight, auto const& bias, auto const& in, auto& out) {
    for (std::size_t o = 0; o < out.size(); ++o) {
      out[o] = bias.span()[o];
      for (std::size_t i = 0; i < in.size(); ++i) {
        out[o] += weight.span()[o * in.size() + i] * in[i];
      }
    }
  };
  Activations a;
  layer(net.weight1, net.bias1, digit.image, a.inner);
  for (float& x : a.inner) {
    x = std::max(x, 0.0F);
  }
  layer(net.weight2, net.bias2, a.inner, a.scores);
  float const largest = *std::max_element(a.scores.begin(), a.scores.end());
  float sum = 0;
  for (float& score : a.scores) {
    score = std::exp(score - largest);
    sum += score;
  }
  for (float& score : a.scores) {
    score /= sum;
  }
  return a;
}

inline std::size_t guess(Network const& net, Digit const& digit) {
  auto const scores = forward(net, digit).scores;
  return static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

/// Cross-entropy of one image, times `factor`; its gradients are added to `to`.
inline float add_gradients(Network const& net, Digit const& digit, float factor, Network& to) {
  Activations const a = forward(net, digit);
  std::array<float, hidden> inner{};
  for (std::size_t o = 0; o < numbers; ++o) {
    float const slope = factor * (a.scores[o] - (o == digit.number ? 1.0F : 0.0F));
    to.bias2.span()[o] += slope;
    for (std::size_t i = 0; i < hidden; ++i) {
      to.weight2.span()[o * hidden + i] += slope * a.inner[i];
      inner[i] += slope * net.weight2.span()[o * hidden + i];
    }
  }
  for (std::size_t o = 0; o < hidden; ++o) {
    float const slope = a.inner[o] > 0 ? inner[o] : 0;
    to.bias1.span()[o] += slope;
    for (std::size_t i = 0; i < pixels; ++i) {
      to.weight1.span()[o * pixels + i] += slope * digit.image[i];
    }
  }
  return -factor * std::log(std::max(a.scores[digit.number], 1e-20F));
}

}  // namespace digits
