// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The main job, the same on every engine and in every memory space: resume a hybrid-sharded model
// from a checkpoint, train on, save, resume on another mesh, and compare the full state bit by bit.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/layout/picture.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/state_dict.hpp>

#include "dense_math.hpp"
#include "models.hpp"

namespace resume {

namespace sm = shardmesh;

struct Options {
  std::string checkpoint;  ///< directory written by PyTorch
  std::string out;         ///< directory for our own checkpoints
  int steps = 20;          ///< training steps on each mesh
  bool blas = false;       ///< forward and backward where the tensors lie, not on the host
  bool terminal = false;   ///< colours, and a progress line that is drawn over
};

/// One line of the summary.
struct Phase {
  std::string mesh;
  int ranks = 0;
  std::string from;
  std::size_t tensors = 0;
  std::size_t bytes = 0;
  std::string compared;
  float first_loss = 0;
  float last_loss = 0;
  double tensors_per_second = 0;
};

constexpr std::size_t batch = 4;

/// A batch of the task: the target of each row is its reversed sine. The same for a step and a rank
/// on every engine.
inline void make_batch(int step, int rank, models::Matrix& x, models::Matrix& target) {
  std::mt19937 random(static_cast<unsigned>(1000 * step + rank));
  x.assign(batch * 8, 0);
  target.assign(batch * 8, 0);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(random() % 1000) / 1000.0F;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    target[i] = std::sin(x[i / 8 * 8 + (7 - i % 8)]);
  }
}

/// A sharded model with its optimizer on one mesh.
template <class Space, class Mesh>
class Trainer {
 public:
  /// @param blas see `Options`.
  Trainer(Mesh mesh, bool blas)
      : mesh_(std::move(mesh)),
        model_(models::dense(
            [](sm::Shape const& shape) { return sm::Tensor<float, Space>::zeros(shape); })),
        net_(sm::fully_shard(model_, mesh_)),
        adam_(net_) {
    if (blas) {
      math_.emplace();
    }
  }
  Trainer(Trainer const&) = delete;
  Trainer& operator=(Trainer const&) = delete;

  [[nodiscard]] sm::StateDict state() {
    return {{"model", sm::state_dict(net_)}, {"optim", adam_.state_dict()}};
  }

  /// Loads model and optimizer, resharding to this mesh.
  template <class Comm>
  void load(Comm const& world, std::string const& directory) {
    sm::StateDict dict = state();
    sm::load(world, directory, dict);
  }

  /// One step: gather the parameters, run forward and backward on this rank's batch, average the
  /// gradients over all ranks straight into the shards, update the shards. Returns the mean loss.
  float step(int number) {
    models::Matrix x;
    models::Matrix target;
    make_batch(number, mesh_.comm().rank(), x, target);
    net_.unshard();
    auto const result = math_ ? math_->loss(model_, x, target, batch)
                              : models::dense_loss_on_host(model_, x, target, batch);
    net_.reshard();
    adam_.step(net_.reduce_gradients(result.gradients));
    float sum = 0;
    for (float loss : sm::all_gather_value(mesh_.comm(), result.loss)) {
      sum += loss;
    }
    return sum / static_cast<float>(mesh_.size());
  }

  /// Who holds the weight of the third layer.
  [[nodiscard]] sm::Layout layout() {
    return sm::state_dict(net_).at("net3.0.weight").tensor().layout();
  }

 private:
  using Model = models::Dense<sm::Tensor<float, Space>>;

  Mesh mesh_;
  Model model_;
  decltype(sm::fully_shard(std::declval<Model&>(), std::declval<Mesh const&>())) net_;
  sm::Adam<typename decltype(net_)::Parameter> adam_;
  std::optional<models::DenseMath<Space>> math_;
};

/// The job of one rank; `summary` is filled on rank 0.
template <class Space, class Comm>
class Job {
 public:
  Job(Comm const& world, Options options) : world_(world), options_(std::move(options)) {}

  /// 2 x n/2, n, 1 x n, and one rank less than n.
  std::vector<Phase> run() {
    sm::index_t const n = world_.size();
    std::string from = options_.checkpoint;
    if (n % 2 == 0) {
      from = phase<2>({2, n / 2}, from);
    }
    from = phase<1>({n}, from);
    from = phase<2>({1, n}, from);
    if (n > 1) {
      phase<1>({n - 1}, from);
    }
    return phases_;
  }

 private:
  [[nodiscard]] bool talks() const { return world_.rank() == 0; }

  template <std::size_t N>
  std::string phase(sm::index_t const (&extents)[N], std::string const& from) {
    sm::Shape const shape(extents, extents + N);
    std::vector<int> ranks;
    for (int rank = 0; rank < static_cast<int>(sm::volume(shape)); ++rank) {
      ranks.push_back(rank);
    }
    std::vector<std::string> const names =
        N == 2 ? std::vector<std::string>{"replicate", "shard"} : std::vector<std::string>{"shard"};
    auto const mesh = sm::device_mesh<N>(world_, extents, ranks, names);
    Trainer<Space, std::remove_const_t<decltype(mesh)>> trainer(mesh, options_.blas);
    trainer.load(world_, from);

    Phase line;
    line.mesh = sm::to_string(shape);
    line.ranks = static_cast<int>(ranks.size());
    line.from = from;
    line.compared = compare(trainer.state(), line);
    if (talks()) {
      std::printf("\n%s loaded onto mesh %s. Who holds net3.0.weight:\n%s", from.c_str(),
                  line.mesh.c_str(),
                  sm::picture(trainer.layout(), {.color = options_.terminal}).c_str());
    }
    if (mesh.is_member()) {
      train(trainer, line);
    }
    expected_ = sm::full_state_dict(trainer.state());
    step_ += options_.steps;
    std::string const to = options_.out + "/step-" + std::to_string(step_);
    sm::save(world_, to, trainer.state());
    if (talks()) {
      std::printf("saved %s\n", to.c_str());
    }
    phases_.push_back(line);
    return to;
  }

  /// Compares the full state just loaded with the one that was saved.
  std::string compare(sm::StateDict const& state, Phase& line) {
    sm::StateDict const full = sm::full_state_dict(state);
    for (sm::StateEntry const& entry : full) {
      if (entry.is_tensor()) {
        ++line.tensors;
        line.bytes += entry.tensor().bytes();
      }
    }
    if (!expected_) {
      return "first load";
    }
    std::string const what = sm::difference(full, *expected_);
    return what.empty() ? "bit-equal" : "DIFFERS: " + what;
  }

  template <class T>
  void train(T& trainer, Phase& line) {
    auto const start = std::chrono::steady_clock::now();
    for (int i = 0; i < options_.steps; ++i) {
      line.last_loss = trainer.step(step_ + i);
      line.first_loss = i == 0 ? line.last_loss : line.first_loss;
      std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
      line.tensors_per_second = 8.0 * (i + 1) / seconds.count();
      if (talks() && (options_.terminal || i + 1 == options_.steps)) {
        std::printf("%sstep %d  loss %.6f  %.0f tensors/s%s", options_.terminal ? "\r" : "",
                    step_ + i + 1, static_cast<double>(line.last_loss), line.tensors_per_second,
                    i + 1 == options_.steps ? "\n" : "");
        std::fflush(stdout);
      }
    }
  }

  Comm world_;
  Options options_;
  int step_ = 0;
  std::optional<sm::StateDict> expected_;
  std::vector<Phase> phases_;
};

[[nodiscard]] inline bool all_equal(std::vector<Phase> const& phases) {
  return std::none_of(phases.begin(), phases.end(), [](Phase const& one) {
    return one.compared.find("DIFFERS") != std::string::npos;
  });
}

inline void print_summary(std::vector<Phase> const& phases) {
  std::printf("\n%-8s %5s  %7s %9s  %-11s %10s %10s %10s\n", "mesh", "ranks", "tensors", "bytes",
              "full state", "loss first", "loss last", "tensors/s");
  for (Phase const& one : phases) {
    std::printf("%-8s %5d  %7zu %9zu  %-11s %10.6f %10.6f %10.0f\n", one.mesh.c_str(), one.ranks,
                one.tensors, one.bytes, one.compared.c_str(), static_cast<double>(one.first_loss),
                static_cast<double>(one.last_loss), one.tensors_per_second);
  }
  std::printf("%s\n", all_equal(phases)
                          ? "Every resumed state is bit-equal to the state that was saved."
                          : "A resumed state DIFFERS from the state that was saved.");
}

}  // namespace resume
