// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/commit.hpp>
#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh::inline v0 {

/// Which checkpoints are kept. One that any of the rules wants is kept, and always the newest.
struct Retention {
  std::size_t last = 1;         ///< the newest so many
  std::int64_t every = 0;       ///< steps that are multiples of it; 0: none
  std::size_t best = 0;         ///< the best so many of those with a metric
  bool lower_is_better = true;  ///< a loss, not an accuracy
};

/// A complete checkpoint of a manager.
struct KeptCheckpoint {
  std::int64_t step = 0;
  std::string path;
  std::optional<double> metric;

  [[nodiscard]] friend bool operator==(KeptCheckpoint const&, KeptCheckpoint const&) = default;
};

/// Those of `checkpoints` that no rule wants. Pure.
/// @pre ascending steps.
[[nodiscard]] inline std::vector<KeptCheckpoint> not_retained(
    std::vector<KeptCheckpoint> const& checkpoints, Retention const& rules) {
  std::vector<char> kept(checkpoints.size(), 0);
  std::vector<std::size_t> ranked;
  for (std::size_t i = 0; i < checkpoints.size(); ++i) {
    KeptCheckpoint const& one = checkpoints[i];
    bool const is_new = checkpoints.size() - i <= std::max<std::size_t>(rules.last, 1);
    bool const is_regular = rules.every > 0 && one.step % rules.every == 0;
    kept[i] = is_new || is_regular ? 1 : 0;
    if (one.metric && *one.metric == *one.metric) {  // NaN is no metric
      ranked.push_back(i);
    }
  }
  std::sort(ranked.begin(), ranked.end(), [&](std::size_t a, std::size_t b) {
    double const left = *checkpoints[a].metric;
    double const right = *checkpoints[b].metric;
    return left != right ? (left < right) == rules.lower_is_better : a > b;
  });
  for (std::size_t i = 0; i < std::min(ranked.size(), rules.best); ++i) {
    kept[ranked[i]] = 1;
  }
  std::vector<KeptCheckpoint> rest;
  for (std::size_t i = 0; i < checkpoints.size(); ++i) {
    if (kept[i] == 0) {
      rest.push_back(checkpoints[i]);
    }
  }
  return rest;
}

namespace detail {

inline constexpr std::string_view step_mark = "step-";
inline constexpr std::string_view trash_mark = ".trash-";
inline constexpr std::string_view metric_name = ".metric";

/// The number in "step-12"; nothing for other names.
[[nodiscard]] inline std::optional<std::int64_t> step_of(std::string const& name) {
  std::int64_t step = 0;
  char const* const end = name.data() + name.size();
  if (!name.starts_with(step_mark)) {
    return std::nullopt;
  }
  auto const [at, error] = std::from_chars(name.data() + step_mark.size(), end, step);
  bool const canonical =
      error == std::errc{} && at == end && name == std::string(step_mark) + std::to_string(step);
  return canonical && step >= 0 ? std::optional(step) : std::nullopt;
}

/// The metric beside a checkpoint, which never makes it unreadable.
[[nodiscard]] inline std::optional<double> read_metric(std::string const& path) {
  try {
    File const file = File::open(path + "/" + std::string(metric_name));
    format::Bytes const bytes = file.read(0, std::min<std::uint64_t>(file.size(), 64));
    std::string_view const text = format::as_text(bytes);
    double value = 0;
    auto const [at, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} ? std::optional(value) : std::nullopt;
  } catch (Error const&) {
    return std::nullopt;
  }
}

/// The complete checkpoints below `root`, by ascending step.
[[nodiscard]] inline std::vector<KeptCheckpoint> list_checkpoints(std::string const& root) {
  std::vector<KeptCheckpoint> found;
  if (!PosixStorage::exists(root)) {
    return found;
  }
  for (std::string const& name : PosixStorage::list(root)) {
    std::string const path = root + "/" + name;
    if (auto const step = step_of(name); step && PosixStorage::exists(path + "/.metadata")) {
      found.push_back({*step, path, read_metric(path)});
    }
  }
  std::sort(found.begin(), found.end(),
            [](KeptCheckpoint const& a, KeptCheckpoint const& b) { return a.step < b.step; });
  return found;
}

/// Removes a checkpoint: it loses its name in one step, so that nobody finds half of it.
inline void discard(std::string const& root, KeptCheckpoint const& one) {
  std::string const trash = root + "/" + std::string(trash_mark) + std::to_string(one.step);
  PosixStorage::remove_all(trash);
  PosixStorage::rename(one.path, trash);
  PosixStorage::sync_directory(root);
  PosixStorage::remove_all(trash);
}

/// Removes what interrupted saves and removals have left in `root`.
inline void sweep(std::string const& root) {
  if (!PosixStorage::exists(root)) {
    return;
  }
  for (std::string const& name : PosixStorage::list(root)) {
    std::size_t const mark = name.find(PosixStorage::temporary_mark);
    bool const is_save = mark != name.npos && step_of(name.substr(0, mark)).has_value();
    if (is_save || name.starts_with(trash_mark)) {
      PosixStorage::remove_all(root + "/" + name);
    }
  }
}

[[nodiscard]] inline std::string pack_checkpoints(std::vector<KeptCheckpoint> const& list) {
  Packer out;
  for (KeptCheckpoint const& one : list) {
    out.number(static_cast<std::uint64_t>(one.step));
    out.text(one.path);
    out.number(one.metric ? 1 : 0);
    out.number(one.metric ? std::bit_cast<std::uint64_t>(*one.metric) : 0);
  }
  return std::move(out).finish();
}

[[nodiscard]] inline std::vector<KeptCheckpoint> unpack_checkpoints(std::string_view text) {
  std::vector<KeptCheckpoint> list;
  for (Unpacker in(text); !in.at_end();) {
    KeptCheckpoint& one = list.emplace_back();
    one.step = static_cast<std::int64_t>(in.number());
    one.path = in.text();
    bool const has_metric = in.number() == 1;
    double const metric = std::bit_cast<double>(in.number());
    one.metric = has_metric ? std::optional(metric) : std::nullopt;
  }
  return list;
}

}  // namespace detail

/// Checkpoints of a run, "step-<number>" below one root, of which some are kept. What is no longer
/// wanted is removed after a newer one is complete and on the disk, never before; so at every moment,
/// also after a crash, the newest complete checkpoint is there. Rank 0 alone looks at the root and
/// changes it; all ranks see what it sees.
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
  /// Removes what interrupted saves below `root` have left; so a root is one job's.
  /// @param root  made with the first save.
  /// @throws IoError; RankFailed on the other ranks.
  /// @collective over `comm`, with equal arguments.
  CheckpointManager(Comm const& comm, std::string root, Retention rules = {})
      : comm_(comm), root_(detail::without_trailing_slashes(std::move(root))), rules_(rules) {
    on_first([this] { detail::sweep(root_); });
  }

  /// Where the checkpoint of a step is, or would be; for `AsyncSaver::save`, with `tidy` once that has
  /// ended.
  [[nodiscard]] std::string path_of(std::int64_t step) const {
    if (step < 0) {
      throw InvalidArgument("shardmesh::CheckpointManager: the step " + std::to_string(step) +
                            " is negative; count from 0");
    }
    return root_ + "/" + std::string(detail::step_mark) + std::to_string(step);
  }

  /// Saves as `save` does, then removes what the rules no longer want.
  /// @param metric  by which `best` goes; rank 0's counts.
  /// @throws as `save`. If only a removal fails, the new checkpoint is complete all the same.
  /// @collective over the manager's ranks.
  void save(std::int64_t step, StateDict const& dict, std::optional<double> metric = {}) {
    v0::save(comm_, path_of(step), dict);
    if (metric) {
      note_metric(step, *metric);
    }
    tidy();
  }

  /// Gives the complete checkpoint of a step its metric, rank 0's.
  /// @throws IoError; RankFailed on the other ranks.
  /// @collective over the manager's ranks.
  void note_metric(std::int64_t step, double metric) {
    std::string const path = path_of(step) + "/" + std::string(detail::metric_name);
    on_first([&] {
      char text[40] = {};
      auto const end = std::to_chars(text, text + sizeof(text) - 1, metric).ptr;
      std::string const temporary = PosixStorage::temporary_name(path);
      PosixStorage::remove_all(temporary);
      File file = File::create(temporary);
      file.write_at(0, format::as_bytes(std::string_view(text, end)));
      file.finish();
      PosixStorage::rename(temporary, path);
      PosixStorage::sync_directory(path_of(step));
    });
  }

  /// Removes the checkpoints that the rules no longer want.
  /// @throws IoError; RankFailed on the other ranks.
  /// @collective over the manager's ranks.
  void tidy() {
    on_first([this] {
      for (KeptCheckpoint const& one : not_retained(detail::list_checkpoints(root_), rules_)) {
        detail::discard(root_, one);
      }
    });
  }

  /// The complete checkpoints, by ascending step.
  /// @throws IoError; RankFailed on the other ranks.
  /// @collective over the manager's ranks.
  [[nodiscard]] std::vector<KeptCheckpoint> list() const {
    std::string text;
    on_first([&] { text = detail::pack_checkpoints(detail::list_checkpoints(root_)); });
    return detail::unpack_checkpoints(all_gather_text(comm_, text).front());
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
  template <class Part>
  void on_first(Part&& part) const {
    detail::together(comm_, "shardmesh::CheckpointManager", [&] {
      if (comm_.rank() == 0) {
        part();
      }
    });
  }

  Comm comm_;
  std::string root_;
  Retention rules_;
};

}  // namespace shardmesh::inline v0
