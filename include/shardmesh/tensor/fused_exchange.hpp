// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/plan/plan.hpp>
#include <shardmesh/tensor/execute.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// One rank's part in moving several tensors together: made once, run as often as needed. Each
/// stage of all the plans travels as one exchange; the plans may have different numbers of stages.
class FusedExchange {
 public:
  FusedExchange() = default;

  /// @param operation  a literal, the name that the user called.
  /// @param name       of what is moved, e.g. of a unit of a model: must be the same on all ranks.
  /// @tparam Plans a range of `Plan`.
  template <class Plans = std::vector<Plan>>
  FusedExchange(char const* operation, std::string name, Plans const& plans, int rank)
      : operation_(operation), name_(std::move(name)) {
    arguments_.add(name_);
    for (Plan const& plan : plans) {
      ends_.emplace_back(plan.from(), plan.to());
      arguments_.add(fingerprint(plan.from()).value()).add(fingerprint(plan.to()).value());
      std::vector<RankStep>& steps = steps_.emplace_back();
      for (std::size_t stage = 0; stage < plan.steps(); ++stage) {
        steps.push_back(plan.rank_step(stage, rank));
      }
      stages_ = detail::larger(stages_, plan.steps());
    }
  }

  /// Number of tensors.
  [[nodiscard]] std::size_t size() const noexcept { return steps_.size(); }

  /// Moves `sources` into `targets`, which have the local shapes of the ends of the plans.
  /// @param comm the ranks of the plans.
  /// @pre both hold size() tensors.
  /// @collective over `comm`.
  template <class T, MemorySpace Space, Communicator Comm>
  void run(Comm const& comm,
           std::vector<Tensor<T, Space>> sources,
           std::vector<Tensor<T, Space>> const& targets,
           typename Space::Stream stream = {}) const {
    auto const words = [this] { return describe(dtype_of<T>); };
    Fingerprint const arguments =
        Fingerprint(arguments_).add(static_cast<std::uint64_t>(dtype_of<T>));
    for (std::size_t stage = 0; stage < stages_; ++stage) {
      std::vector<Tensor<T, Space>> next = sources;
      std::vector<ExchangeJob> jobs;
      for (std::size_t i = 0; i < steps_.size(); ++i) {
        if (stage >= steps_[i].size()) {
          continue;
        }
        RankStep const& step = steps_[i][stage];
        bool const last = stage + 1 == steps_[i].size();
        next[i] = last ? targets[i] : Tensor<T, Space>(step.target_shape, stream);
        jobs.push_back({&step, dtype_of<T>, sources[i].data(), next[i].data()});
      }
      execute<Space>(comm, jobs, Call(operation_, Fingerprint(arguments).add(stage), words),
                     stream);
      sources = std::move(next);
    }
  }

 private:
  [[nodiscard]] std::string describe(DType dtype) const {
    std::string text = "\"" + name_ + "\" of " + std::string(to_string(dtype)) + ":";
    for (auto const& [from, to] : ends_) {
      text += detail::concat(' ', to_string(from), " -> ", to_string(to), ';');
    }
    text.pop_back();
    return text;
  }

  char const* operation_ = "";
  std::string name_;
  Fingerprint arguments_;
  std::vector<std::pair<Holding, Holding>> ends_;  // of each plan
  std::vector<std::vector<RankStep>> steps_;       // by tensor, by stage
  std::size_t stages_ = 0;
};

}  // namespace v0
}  // namespace shardmesh
