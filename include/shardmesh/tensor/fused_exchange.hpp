// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/layout/same_parts.hpp>
#include <shardmesh/plan/plan_cache.hpp>
#include <shardmesh/tensor/dist_tensor.hpp>
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
    for (Plan const& plan : plans) {
      add(std::make_shared<RankPlan const>(make_rank_plan(plan, rank)));
    }
  }

  /// The same of plans that are kept elsewhere too.
  FusedExchange(char const* operation,
                std::string name,
                std::vector<std::shared_ptr<RankPlan const>> const& plans)
      : operation_(operation), name_(std::move(name)) {
    for (auto const& plan : plans) {
      add(plan);
    }
  }

  /// Number of tensors.
  [[nodiscard]] std::size_t size() const noexcept { return plans_.size(); }

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
        Fingerprint(arguments_).add(name_).add(static_cast<std::uint64_t>(dtype_of<T>));
    for (std::size_t stage = 0; stage < stages_; ++stage) {
      std::vector<Tensor<T, Space>> next = sources;
      std::vector<ExchangeJob> jobs;
      for (std::size_t i = 0; i < plans_.size(); ++i) {
        std::vector<RankStep> const& steps = plans_[i]->steps;
        if (stage >= steps.size()) {
          continue;
        }
        RankStep const& step = steps[stage];
        bool const last = stage + 1 == steps.size();
        next[i] = last ? targets[i] : Tensor<T, Space>(step.target_shape, stream);
        jobs.push_back({&step, dtype_of<T>, sources[i].data(), next[i].data(), true});
      }
      execute<Space>(comm, jobs, Call(operation_, Fingerprint(arguments).add(stage), words),
                     stream);
      sources = std::move(next);
    }
  }

 private:
  void add(std::shared_ptr<RankPlan const> plan) {
    arguments_.add(plan->fingerprint.value());
    stages_ = detail::larger(stages_, plan->steps.size());
    plans_.push_back(std::move(plan));
  }

  [[nodiscard]] std::string describe(DType dtype) const {
    std::string text = "\"" + name_ + "\" of " + std::string(to_string(dtype)) + ":";
    for (auto const& one : plans_) {
      text +=
          detail::concat(' ', to_string(one->plan.from()), " -> ", to_string(one->plan.to()), ';');
    }
    text.pop_back();
    return text;
  }

  char const* operation_ = "";
  std::string name_;
  Fingerprint arguments_;
  std::vector<std::shared_ptr<RankPlan const>> plans_;  // by tensor
  std::size_t stages_ = 0;
};

/// Moves several tensors to other placements on their mesh, all of them in one exchange (two where some are
/// partial): what many small tensors cost alone is mostly waiting for each other.
///
/// @param sources tensors on one mesh; any number, alike on all ranks.
/// @param target  one placement per mesh dimension, static or not, for all of them.
/// @returns as many tensors, in the same order. None shares its elements with a source, unless nothing has to
///          move for it (`same_parts`).
/// @throws as `redistribute`, and InvalidArgument if the tensors are on different meshes; nothing is
///         communicated then.
/// @collective over the mesh.
template <AnyDistTensor Source, PlacementTuple Q>
[[nodiscard]] auto redistribute(std::vector<Source> const& sources,
                                Q const& target,
                                typename Source::Stream stream = {}) {
  using T = typename Source::value_type;
  using Space = typename Source::memory_space;
  using Result = DistTensor<T, typename Source::mesh_type, Q, Space>;
  std::vector<std::shared_ptr<RankPlan const>> plans;
  std::vector<Tensor<T, Space>> from;
  std::vector<Tensor<T, Space>> to;
  std::vector<Result> results;
  results.reserve(sources.size());
  for (Source const& source : sources) {
    auto const& mesh = sources.front().mesh();
    if (!(source.mesh() == mesh)) {
      throw InvalidArgument("shardmesh::redistribute: tensors of one call are on " +
                            to_string(mesh.description()) + " and on " +
                            to_string(source.mesh().description()) + "; call it for each mesh");
    }
    Layout const layout(source.shape(), mesh.shape(), to_list(target));
    if (!mesh.is_member() || same_parts(source.layout(), layout)) {
      static_cast<void>(make_plan(source.layout(), layout));  // throws for what is not legal
      results.emplace_back(source.mesh(), layout, source.to_local());
      continue;
    }
    plans.push_back(mesh.plans().get(source.layout(), layout, mesh.comm().rank()));
    from.push_back(source.to_local());
    to.emplace_back(plans.back()->steps.back().target_shape, stream);
    results.emplace_back(source.mesh(), layout, to.back());
  }
  if (!plans.empty()) {
    FusedExchange("redistribute", detail::concat(std::to_string(plans.size()), " tensors"), plans)
        .run(sources.front().mesh().comm(), std::move(from), to, stream);
  }
  return results;
}

}  // namespace v0
}  // namespace shardmesh
