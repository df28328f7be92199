// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// Hybrid-sharded training on real data: a network of two layers learns 800 handwritten digits on 2
// x 2 ranks, is tried on 200 others, and its loss is drawn.
//
//   train_digits [FILE.svg]
#include <cstdio>
#include <exception>
#include <utility>
#include <vector>

#include <shardmesh/shardmesh.hpp>

#include "support/digits.hpp"
#include "support/loss_curve.hpp"

namespace sm = shardmesh;

namespace {

constexpr int steps = 120;
constexpr std::size_t batch = 32;  // of each rank, each step
constexpr std::size_t trained_on = 800;

/// A sharded network, its optimizer, and a step of both.
template <class Mesh>
class Training {
 public:
  explicit Training(Mesh const& mesh)
      : mesh_(mesh), net_(sm::fully_shard(model_, mesh)), adam_(net_, {.lr = 0.01}) {}

  /// Every rank has the gradients of its own images; they are averaged on their way into the
  /// shards.
  /// @returns the loss, averaged over the ranks.
  float step(std::vector<digits::Digit> const& data, int number) {
    digits::Network gradients;
    float loss = 0;
    auto const ranks = static_cast<std::size_t>(mesh_.size());
    auto const rank = static_cast<std::size_t>(mesh_.comm().rank());
    net_.unshard();  // whole weights in model_
    for (std::size_t i = 0; i < batch; ++i) {
      std::size_t const which = (static_cast<std::size_t>(number) * ranks + rank) * batch + i;
      loss += digits::add_gradients(model_, data[which % trained_on], 1.0F / batch, gradients);
    }
    net_.reshard();
    adam_.step(net_.reduce_gradients(gradients));
    float sum = 0;
    for (float const of_rank : sm::all_gather_value(mesh_.comm(), loss)) {
      sum += of_rank;
    }
    return sum / static_cast<float>(ranks);
  }

  /// The part of the digits after the first 800 that are read right.
  double accuracy(std::vector<digits::Digit> const& data) {
    std::size_t right = 0;
    net_.unshard();
    for (std::size_t i = trained_on; i < data.size(); ++i) {
      right += digits::guess(model_, data[i]) == data[i].number ? 1U : 0U;
    }
    net_.reshard();
    return static_cast<double>(right) / static_cast<double>(data.size() - trained_on);
  }

  [[nodiscard]] sm::StateSize size() { return sm::count(net_); }

 private:
  Mesh mesh_;
  digits::Network model_ = digits::initialised();  // empty but between unshard() and reshard()
  decltype(sm::fully_shard(std::declval<digits::Network&>(), std::declval<Mesh const&>())) net_;
  sm::Adam<typename decltype(net_)::Parameter> adam_;
};

}  // namespace

int main(int argc, char** argv) try {
  auto const data = digits::read(EXAMPLE_DATA "/digits.txt");
  double accuracy = 0;
  std::vector<float> losses;
  sm::launch(sm::threads{4}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"replicate", "shard"});
    Training training(mesh);
    sm::StateSize const size = training.size();
    for (int i = 0; i < steps; ++i) {
      float const loss = training.step(data, i);
      if (world.rank() == 0) {
        losses.push_back(loss);
        if (i % 20 == 0) {
          std::printf("step %3d  loss %.4f\n", i, double{loss});
        }
      }
    }
    double const read_right = training.accuracy(data);
    if (world.rank() == 0) {
      accuracy = read_right;
      std::printf("%td bytes of parameters, of which each rank keeps %td\n", size.bytes,
                  size.local_bytes);
    }
  });
  char const* const file = argc > 1 ? argv[1] : "loss.svg";
  write_loss_curve(file, losses);
  std::printf("%.1f %% of the digits it has not seen are read right; the loss is drawn in %s\n",
              100 * accuracy, file);
  return accuracy > 0.9 ? 0 : 1;
} catch (std::exception const& error) {
  std::fprintf(stderr, "train_digits: %s\n", error.what());
  return 1;
}
