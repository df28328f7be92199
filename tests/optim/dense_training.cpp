// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include "../support/dense_training.hpp"

#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>

namespace dense_training_test {

namespace sm = shardmesh;

using Host = sm::Tensor<float>;

namespace {

/// The Dense model as it is before the first step.
models::Dense<Host> initial_model() {
  auto model = models::dense([](sm::Shape const& shape) { return Host::zeros(shape); });
  sm::for_each_leaf(model, [](std::string const& name, Host& leaf) {
    leaf = test::initial_parameter(name, leaf.shape());
  });
  return model;
}

}  // namespace

TEST_SUITE_BEGIN("optim.dense_training");

TEST_CASE("the rows of the ranks are the rows of the batch") {
  auto const whole = test::batch(3, 0, 1);
  CHECK(whole.rows == 12);
  CHECK(whole.target[0] == whole.x[7] / 2);
  CHECK(whole.target[95] == whole.x[88] / 2);
  for (int const ranks : {2, 3, 4, 6}) {
    models::Matrix x;
    models::Matrix target;
    for (int rank = 0; rank < ranks; ++rank) {
      auto const part = test::batch(3, rank, ranks);
      x.insert(x.end(), part.x.begin(), part.x.end());
      target.insert(target.end(), part.target.begin(), part.target.end());
    }
    CHECK(x == whole.x);
    CHECK(target == whole.target);
  }
}

TEST_CASE("20 unsharded steps of Dense give the losses and weights of PyTorch to 1e-5") {
  auto const golden = test::golden_training();
  REQUIRE(golden.losses.size() == 20);
  REQUIRE(golden.weights.size() == 8);
  auto model = initial_model();
  sm::Adam<Host> adam(model, golden.options);
  double worst_loss = 0;
  for (int step = 0; step < 20; ++step) {
    auto const batch = test::batch(step, 0, 1);
    auto const result = models::dense_loss(model, batch.x, batch.target, batch.rows);
    adam.step(result.gradients);
    double const wanted = golden.losses[static_cast<std::size_t>(step)];
    worst_loss = std::max(worst_loss, std::abs(static_cast<double>(result.loss) / wanted - 1));
  }
  CHECK(worst_loss < 1e-5);
  double worst_weight = 0;
  for (auto const& parameter : adam.parameters()) {
    double const difference =
        test::relative_difference(parameter.value, golden.weights.at(parameter.name));
    worst_weight = std::max(worst_weight, difference);
    CHECK(difference < 1e-5);
  }
  MESSAGE("worst loss " << worst_loss << ", worst weight " << worst_weight);
}

TEST_SUITE_END();

}  // namespace dense_training_test
