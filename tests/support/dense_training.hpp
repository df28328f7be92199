// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The training of the Dense model that PyTorch did in one process (tests/data/dense_training.json): where it
// starts, what each rank sees in each step, and what must come out, however the model is sharded.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <shardmesh/optim/adam.hpp>
#include <shardmesh/tensor/tensor.hpp>

#include "../../examples/support/dense_math.hpp"

namespace test {

namespace sm = shardmesh;

/// `count` numbers of [-1, 1), a function of the name alone; make_dense_training.py has the same.
[[nodiscard]] inline std::vector<float> named_values(std::string_view name, std::size_t count) {
  std::uint32_t x = 2166136261U;  // FNV-1a
  for (char const letter : name) {
    x = (x ^ static_cast<unsigned char>(letter)) * 16777619U;
  }
  std::vector<float> values(count);
  for (float& value : values) {
    x = 1664525U * x + 1013904223U;
    value = (static_cast<float>(x >> 8U) - 8388608.0F) / 8388608.0F;
  }
  return values;
}

/// What the parameter `name` of the model holds before the first step, whole, on the host.
[[nodiscard]] inline sm::Tensor<float> initial_parameter(std::string_view name,
                                                         sm::Shape const& shape) {
  auto values = named_values(name, static_cast<std::size_t>(sm::volume(shape)));
  for (float& value : values) {
    value /= 4;
  }
  return sm::Tensor<float>::from(shape, values);
}

/// Rows of the whole batch.
inline constexpr int batch_rows = 12;

/// Rows of inputs and of targets: of each input half of its reverse.
struct Batch {
  models::Matrix x;
  models::Matrix target;
  std::size_t rows = 0;
};

/// The rows of a step that one of `ranks` ranks trains on, equally many on each.
/// @pre ranks divides 12.
[[nodiscard]] inline Batch batch(int step, int rank, int ranks) {
  auto const all = named_values("batch " + std::to_string(step), batch_rows * 8);
  auto const rows = static_cast<std::size_t>(batch_rows / ranks);
  auto const first = all.begin() + static_cast<std::ptrdiff_t>(rows) * 8 * rank;
  Batch result{{first, first + static_cast<std::ptrdiff_t>(rows) * 8}, {}, rows};
  for (std::size_t i = 0; i < result.x.size(); ++i) {
    result.target.push_back(result.x[i / 8 * 8 + (7 - i % 8)] / 2);
  }
  return result;
}

/// What came out of PyTorch. The loss of a step is the mean squared error over the whole batch: the mean over
/// the ranks of what `models::dense_loss` gives for their rows; likewise the gradients.
struct GoldenTraining {
  sm::AdamOptions options;
  std::vector<double> losses;                        ///< before each of the 20 steps
  std::map<std::string, sm::Tensor<float>> weights;  ///< after them; flat: shape (elements)
};

[[nodiscard]] inline GoldenTraining golden_training() {
  std::ifstream file(SHARDMESH_TEST_DATA "/dense_training.json");
  auto const json = nlohmann::json::parse(file);
  GoldenTraining golden;
  golden.options.lr = json.at("options").at("lr");
  golden.losses = json.at("losses").get<std::vector<double>>();
  for (auto const& [name, values] : json.at("weights").items()) {
    auto const flat = values.get<std::vector<float>>();
    golden.weights.emplace(name,
                           sm::Tensor<float>::from({static_cast<sm::index_t>(flat.size())}, flat));
  }
  return golden;
}

/// The largest difference of two whole host tensors of as many elements, relative to the largest element wanted.
/// @returns infinity if the numbers of elements differ.
[[nodiscard]] inline double relative_difference(sm::Tensor<float> const& got,
                                                sm::Tensor<float> const& wanted) {
  if (got.size() != wanted.size()) {
    return HUGE_VAL;
  }
  double difference = 0;
  double largest = 0;
  for (std::size_t i = 0; i < wanted.span().size(); ++i) {
    auto const value = static_cast<double>(wanted.span()[i]);
    difference = std::max(difference, std::abs(static_cast<double>(got.span()[i]) - value));
    largest = std::max(largest, std::abs(value));
  }
  return difference == 0 ? 0 : difference / largest;
}

}  // namespace test
