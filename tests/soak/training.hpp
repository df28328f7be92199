// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// A training that saves and goes on, on other ranks, beside the arithmetic that it must equal.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/sgd.hpp>
#include <shardmesh/tensor/tensor.hpp>

#include "store.hpp"
#include "truth.hpp"

namespace soak {

struct TwoTensors {
  using parameter_type = sm::Tensor<float>;
  sm::Tensor<float> weight;
  sm::Tensor<float> bias;
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }
};

/// Steps of a training, of which all numbers are so small that float holds them exactly: then each sharding, on any ranks,
/// must give what one line of arithmetic gives.
struct Course {
  std::array<sm::Shape, 2> shapes;
  std::uint64_t seed = 0;
  std::vector<std::vector<double>> weights{2};
  std::vector<std::vector<double>> momenta{2};

  [[nodiscard]] double gradient(std::size_t p, std::size_t i, int step, int rank) const {
    std::uint64_t const x =
        mixed(seed + mixed(p + 2 * i) + 7919U * static_cast<std::uint64_t>(step) +
              104729U * static_cast<std::uint64_t>(rank));
    return static_cast<double>(x % 17) - 8;
  }
  void step(int number, int ranks) {
    for (std::size_t p = 0; p < 2; ++p) {
      for (std::size_t i = 0; i < weights[p].size(); ++i) {
        double sum = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          sum += gradient(p, i, number, rank);
        }
        momenta[p][i] = 0.5 * momenta[p][i] + sum / ranks;
        weights[p][i] -= 0.5 * momenta[p][i];
      }
    }
  }
};

inline sm::Tensor<float> tensor_of(sm::Shape const& shape,
                                   std::function<double(std::size_t)> const& value) {
  sm::Tensor<float> tensor(shape);
  for (std::size_t i = 0; i < tensor.span().size(); ++i) {
    tensor.span()[i] = static_cast<float>(value(i));
  }
  return tensor;
}

[[nodiscard]] inline std::string train_leg(Course const& before,
                                           Course const& after,
                                           int ranks,
                                           bool hybrid,
                                           std::string const& path,
                                           std::pair<int, int> steps,
                                           bool resumes) {
  std::vector<std::string> faults(static_cast<std::size_t>(ranks));
  sm::launch(sm::threads{ranks}, [&](World& comm) {
    auto const run = [&](auto const& mesh) {
      auto const start = [&](std::size_t p) {
        return tensor_of(before.shapes[p],
                         [&](std::size_t i) { return resumes ? -1.0 : before.weights[p][i]; });
      };
      TwoTensors model{start(0), start(1)};
      auto net = sm::fully_shard(model, mesh);
      sm::Sgd optimizer(net, sm::SgdOptions{.lr = 0.5, .momentum = 0.5});
      sm::StateDict state{{"model", sm::state_dict(net)}, {"optim", optimizer.state_dict()}};
      if (resumes) {
        sm::load_any(comm, path, state);
      }
      for (int step = steps.first; step < steps.second; ++step) {
        std::vector<sm::Tensor<float>> gradients;
        for (std::size_t p = 0; p < 2; ++p) {
          gradients.push_back(tensor_of(before.shapes[p], [&](std::size_t i) {
            return before.gradient(p, i, step, comm.rank());
          }));
        }
        optimizer.step(net.reduce_gradients(gradients));
      }
      sm::save(comm, path, state);
      net.unshard();
      for (std::size_t p = 0; p < 2; ++p) {
        auto const& whole = p == 0 ? net.model().weight : net.model().bias;
        for (std::size_t i = 0; i < after.weights[p].size(); ++i) {
          if (static_cast<double>(whole.span()[i]) != after.weights[p][i]) {
            return "parameter " + std::to_string(p) + ", element " + std::to_string(i) + " is " +
                   std::to_string(whole.span()[i]) + " after step " + std::to_string(steps.second) +
                   " instead of " + std::to_string(after.weights[p][i]);
          }
        }
      }
      net.reshard();
      return std::string();
    };
    faults[static_cast<std::size_t>(comm.rank())] =
        hybrid ? run(sm::device_mesh(comm, {2, ranks / 2}, {"replicate", "shard"}))
               : run(sm::device_mesh(comm, {ranks}, {"shard"}));
  });
  return first_of(faults);
}

/// Trains on some ranks, saves, and goes on on others, from what was saved.
[[nodiscard]] inline std::string train(Random& random, std::string const& path) {
  Course course;
  course.seed = random();
  course.shapes = {sm::Shape{static_cast<sm::index_t>(1 + below(random, 12)),
                             static_cast<sm::index_t>(1 + below(random, 6))},
                   sm::Shape{static_cast<sm::index_t>(1 + below(random, 9))}};
  for (std::size_t p = 0; p < 2; ++p) {
    auto const count = static_cast<std::size_t>(sm::volume(course.shapes[p]));
    course.momenta[p].assign(count, 0);
    for (std::size_t i = 0; i < count; ++i) {
      course.weights[p].push_back(static_cast<double>(mixed(course.seed + i + p) % 32));
    }
  }
  int step = 0;
  std::string fault;
  for (int leg = 0; leg < 3 && fault.empty(); ++leg) {
    int const ranks = 1 << below(random, 3);  // so that means are exact
    bool const hybrid = ranks > 1 && below(random, 2) == 0;
    int const until = step + 1 + static_cast<int>(below(random, 2));
    Course const before = course;
    for (int s = step; s < until; ++s) {
      course.step(s, ranks);
    }
    fault = train_leg(before, course, ranks, hybrid, path, {step, until}, leg > 0);
    step = until;
  }
  std::filesystem::remove_all(path);
  return fault;
}

}  // namespace soak
