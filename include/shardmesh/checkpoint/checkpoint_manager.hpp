// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/detail/arguments.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

/// Which checkpoints are kept. One that any of the rules wants is kept, and always the newest.
struct Retention {
  std::size_t last = 1;         ///< the newest so many
  std::int64_t every = 0;       ///< steps that are multiples of it; 0: none
  std::size_t best = 0;         ///< the best so many by metric; also those whose metric is lost
  bool lower_is_better = true;  ///< a loss, not an accuracy
  /// With a checkpoint remove all else that is in its directory too. Otherwise what somebody has put
  /// there (`lr_scheduler.json`, `hf_assets/`) stays, in a directory that is no checkpoint any more.
  bool whole_directories = false;
};

/// A complete checkpoint of a manager.
struct KeptCheckpoint {
  std::int64_t step = 0;
  std::string path;
  std::optional<double> metric;
  bool metric_lost = false;  ///< it has one that cannot be read; `note_metric` gives it another

  [[nodiscard]] friend bool operator==(KeptCheckpoint const&, KeptCheckpoint const&) = default;
};

/// Those of `checkpoints` that no rule wants. Pure.
/// @pre ascending steps.
[[nodiscard]] SHARDMESH_INLINE std::vector<KeptCheckpoint> not_retained(
    std::vector<KeptCheckpoint> const& checkpoints, Retention const& rules);

namespace detail {

inline constexpr std::string_view step_mark = "step-";

/// The complete checkpoints below `root`, by ascending step.
[[nodiscard]] SHARDMESH_INLINE std::vector<KeptCheckpoint> list_checkpoints(
    std::string const& root);

/// Removes a checkpoint: it loses its name in one step, so that nobody finds half of it.
SHARDMESH_INLINE void discard(std::string const& root, KeptCheckpoint const& one, bool whole);

/// Retention would remove a checkpoint that is older than the newest as soon as it is saved.
SHARDMESH_INLINE void refuse_older(std::string const& root, std::int64_t step);

/// Removes what interrupted saves and removals have left in `root`.
SHARDMESH_INLINE void sweep(std::string const& root, bool whole);

/// A metric as it appears together with a checkpoint.
[[nodiscard]] SHARDMESH_INLINE Note note_of_metric(double metric);

/// Gives the complete checkpoint of a step below `root` its metric, or another one.
/// @param path  of the checkpoint.
SHARDMESH_INLINE void replace_metric(std::string const& root,
                                     std::int64_t step,
                                     std::string const& path,
                                     double metric);

[[nodiscard]] SHARDMESH_INLINE std::string pack_checkpoints(
    std::vector<KeptCheckpoint> const& list);
[[nodiscard]] SHARDMESH_INLINE std::vector<KeptCheckpoint> unpack_checkpoints(
    std::string_view text);

}  // namespace detail

/// Checkpoints of a run, "step-<number>" below one root, of which some are kept. What is no longer
/// wanted is removed after a newer one is complete and on the disk, never before; so at every moment,
/// also after a crash, the newest complete checkpoint is there. Rank 0 alone looks at the root and
/// changes it; all ranks see what it sees.
///
/// What lies beside the files of a checkpoint is not the manager's: see `save` for checkpoints that are
/// replaced, `Retention::whole_directories` for those that are removed. A step that is a link loses the
/// link alone.
///
/// @code
///   sm::CheckpointManager manager(world, "run", {.last = 3, .every = 1000, .best = 1});
///   if (auto const newest = manager.latest()) {
///     sm::load(world, newest->path, state);
///   }
///   manager.save(step, state, loss);
/// @endcode
template <Communicator Comm>
class CheckpointManager {
 public:
  /// Removes what interrupted saves below `root` have left; not what one that is going on writes. A root is
  /// one job's all the same: retention counts all steps in it.
  /// @param root  made with the first save.
  /// @throws IoError; RankFailed on the other ranks. MismatchError on all for arguments that differ.
  /// @collective over `comm`, with equal arguments.
  CheckpointManager(Comm const& comm, std::string root, Retention rules = {})
      : comm_(comm), root_(detail::without_trailing_slashes(std::move(root))), rules_(rules) {
    detail::refuse_other_arguments(
        comm_, operation,
        detail::Arguments()
            .path("root", root_)
            .add("last", std::to_string(rules.last))
            .add("every", std::to_string(rules.every))
            .add("best", std::to_string(rules.best))
            .add("lower_is_better", rules.lower_is_better ? "true" : "false")
            .add("whole_directories", rules.whole_directories ? "true" : "false"));
    on_first([this] { detail::sweep(root_, rules_.whole_directories); });
  }

  /// Where the checkpoint of a step is, or would be.
  [[nodiscard]] std::string path_of(std::int64_t step) const {
    if (step < 0) {
      throw InvalidArgument("shardmesh::CheckpointManager: the step " + std::to_string(step) +
                            " is negative; count from 0");
    }
    return root_ + "/" + std::string(detail::step_mark) + std::to_string(step);
  }

  /// Saves as `save` does, then removes what the rules no longer want. A checkpoint of the same step is
  /// replaced.
  /// @param step    not older than the newest checkpoint.
  /// @param metric  by which `best` goes; appears together with the checkpoint. Rank 0's counts, the
  ///                others need none.
  /// @throws as `save`; MismatchError on all ranks for steps that differ; InvalidArgument for an older step, RankFailed then on the other ranks, before
  ///         anything is written. If only a removal fails, the new checkpoint is complete all the same.
  /// @collective over the manager's ranks.
  void save(std::int64_t step,
            StateDict const& dict,
            std::optional<double> metric = {},
            SaveOptions const& options = {}) {
    refuse_other_steps("shardmesh::CheckpointManager::save", step);
    std::string const path = path_of(step);
    wait_for_pending();
    on_first([&] { detail::refuse_older(root_, step); });
    std::optional<detail::Note> note;
    if (metric) {
      note = detail::note_of_metric(*metric);
    }
    detail::SaveCounters counters;
    detail::run_save(detail::AnyRanks(comm_), path, dict, options, counters, nullptr, note);
    tidy();
  }

  /// Saves in the background, by a saver of the same ranks. The manager remembers it: `note_metric`, `tidy` and the
  /// next `save` wait for it first, and throw what it has failed with.
  /// @throws InvalidArgument for an older step, RankFailed then on the other ranks; as `AsyncSaver::save`.
  /// @collective over the manager's ranks.
  Saving save(AsyncSaver<Comm>& saver, std::int64_t step, StateDict const& dict) {
    refuse_other_steps("shardmesh::CheckpointManager::save", step);
    std::string const path = path_of(step);
    on_first([&] { detail::refuse_older(root_, step); });
    pending_.reset();  // the saver tells of it
    pending_ = saver.save(path, dict);
    return *pending_;
  }

  /// Removes the checkpoints after `step`, to go back in training; -1 removes all.
  /// @throws IoError; RankFailed on the other ranks.
  /// @collective over the manager's ranks.
  void forget_after(std::int64_t step) {
    refuse_other_steps("shardmesh::CheckpointManager::forget_after", step);
    on_first([&] {
      auto all = detail::list_checkpoints(root_);
      for (; !all.empty() && all.back().step > step; all.pop_back()) {
        detail::discard(root_, all.back(), rules_.whole_directories);
      }
    });
  }

  /// Gives the complete checkpoint of a step its metric, or another one; rank 0's counts.
  /// @throws IoError; RankFailed on the other ranks.
  /// @collective over the manager's ranks.
  void note_metric(std::int64_t step, double metric) {
    refuse_other_steps("shardmesh::CheckpointManager::note_metric", step);
    std::string const path = path_of(step);
    wait_for_pending();
    on_first([&] { detail::replace_metric(root_, step, path, metric); });
  }

  /// Removes the checkpoints that the rules no longer want.
  /// @throws IoError; RankFailed on the other ranks.
  /// @collective over the manager's ranks.
  void tidy() {
    wait_for_pending();
    on_first([this] {
      for (KeptCheckpoint const& one : not_retained(detail::list_checkpoints(root_), rules_)) {
        detail::discard(root_, one, rules_.whole_directories);
      }
    });
  }

  /// The complete checkpoints, by ascending step.
  /// @throws IoError; RankFailed on the other ranks.
  /// @collective over the manager's ranks.
  [[nodiscard]] std::vector<KeptCheckpoint> list() const {
    std::string text;
    on_first([&] { text = detail::pack_checkpoints(detail::list_checkpoints(root_)); });
    return detail::unpack_checkpoints(
        all_gather_text(comm_, text, detail::call_of(operation)).front());
  }

  /// The newest complete checkpoint.
  /// @collective over the manager's ranks.
  [[nodiscard]] std::optional<KeptCheckpoint> latest() const {
    auto const all = list();
    return all.empty() ? std::nullopt : std::optional(all.back());
  }

  /// The one with the best metric, the newest of equals; nothing if none has one.
  /// @collective over the manager's ranks.
  [[nodiscard]] std::optional<KeptCheckpoint> best() const {
    std::optional<KeptCheckpoint> found;
    for (KeptCheckpoint const& one : list()) {
      if (one.metric && *one.metric == *one.metric &&
          (!found || *one.metric == *found->metric ||
           (*one.metric < *found->metric) == rules_.lower_is_better)) {
        found = one;
      }
    }
    return found;
  }

 private:
  static constexpr char operation[] = "shardmesh::CheckpointManager";

  /// For a save in the background, if there is one; throws its error once.
  void wait_for_pending() {
    if (auto const pending = std::exchange(pending_, std::nullopt)) {
      pending->wait();
    }
  }

  void refuse_other_steps(char const* name, std::int64_t step) const {
    detail::refuse_other_arguments(comm_, name,
                                   detail::Arguments().add("step", std::to_string(step)));
  }

  template <class Part>
  void on_first(Part&& part) const {
    detail::together(comm_, operation, [&] {
      if (comm_.rank() == 0) {
        part();
      }
    });
  }

  Comm comm_;
  std::string root_;
  Retention rules_;
  std::optional<Saving> pending_;  ///< the last in the background
};

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/detail/checkpoint_manager_bodies.hpp>
#endif
