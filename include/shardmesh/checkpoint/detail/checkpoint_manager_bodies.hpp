// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/checkpoint_manager.hpp.

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/detail/commit.hpp>
#include <shardmesh/checkpoint/detail/metric_note.hpp>
#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/storage/save_lock.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {

SHARDMESH_INLINE std::vector<KeptCheckpoint> not_retained(
    std::vector<KeptCheckpoint> const& checkpoints, Retention const& rules) {
  std::vector<char> kept(checkpoints.size(), 0);
  std::vector<std::size_t> ranked;
  for (std::size_t i = 0; i < checkpoints.size(); ++i) {
    KeptCheckpoint const& one = checkpoints[i];
    bool const is_new = checkpoints.size() - i <= std::max<std::size_t>(rules.last, 1);
    bool const is_regular = rules.every > 0 && one.step % rules.every == 0;
    bool const may_be_best = rules.best > 0 && one.metric_lost;
    kept[i] = is_new || is_regular || may_be_best ? 1 : 0;
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

inline constexpr std::string_view trash_mark = ".trash-";

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

/// With its metric, which never makes a checkpoint unreadable.
[[nodiscard]] inline KeptCheckpoint describe_checkpoint(std::int64_t step,
                                                        std::string const& path) {
  KeptCheckpoint one{step, path, {}};
  try {
    one.metric = find_metric(path);
  } catch (Error const&) {
    one.metric_lost = true;
  }
  return one;
}

SHARDMESH_INLINE std::vector<KeptCheckpoint> list_checkpoints(std::string const& root) {
  std::vector<KeptCheckpoint> found;
  if (!PosixStorage::exists(root)) {
    return found;
  }
  for (std::string const& name : PosixStorage::list(root)) {
    std::string const path = root + "/" + name;
    if (auto const step = step_of(name); step && PosixStorage::exists(path + "/.metadata")) {
      found.push_back(describe_checkpoint(*step, path));
    }
  }
  std::sort(found.begin(), found.end(),
            [](KeptCheckpoint const& a, KeptCheckpoint const& b) { return a.step < b.step; });
  return found;
}

/// Removes a checkpoint that has lost its name. What else is in its directory comes back under `path`,
/// with a manifest, by which `save` knows that it may save there.
inline void empty_trash(std::string const& trash, std::string const& path, bool whole) {
  if (whole || !PosixStorage::is_directory(trash)) {
    PosixStorage::remove_all(trash);
    return;
  }
  DirectoryNames const names = sort_names(trash);
  if (names.foreign.empty() || PosixStorage::is_directory(path)) {
    dissolve(trash, path, OnConflict::keep_both);
    return;
  }
  if (!PosixStorage::exists(trash + "/" + std::string(manifest_name))) {
    write_file(trash + "/" + std::string(manifest_name), write_manifest({}));
  }
  for (std::string const& name : names.own) {
    if (name != manifest_name) {
      PosixStorage::remove_all(trash + "/" + name);
    }
  }
  PosixStorage::rename(trash, path);
}

SHARDMESH_INLINE void discard(std::string const& root, KeptCheckpoint const& one, bool whole) {
  SaveLock const lock(one.path, "shardmesh::CheckpointManager");
  std::string const trash = root + "/" + std::string(trash_mark) + std::to_string(one.step);
  empty_trash(trash, one.path, whole);
  PosixStorage::rename(one.path, trash);
  PosixStorage::sync_directory(root);
  empty_trash(trash, one.path, whole);
}

SHARDMESH_INLINE void refuse_older(std::string const& root, std::int64_t step) {
  auto const all = list_checkpoints(root);
  if (!all.empty() && all.back().step > step) {
    throw InvalidArgument("shardmesh::CheckpointManager::save: step " + std::to_string(step) +
                          " is older than the newest checkpoint below " + root + ", of step " +
                          std::to_string(all.back().step) +
                          "; to go back in training call forget_after with the step that you go "
                          "back to, to begin another run save below another root");
  }
}

/// Does something with what belongs to a step, unless it is of a save that is going on.
template <class Part>
void unless_saving(std::string const& step, Part const& part) {
  std::optional<SaveLock> lock;
  try {
    lock.emplace(step, "shardmesh::CheckpointManager");
  } catch (IoError const& error) {
    if (error.code() == EBUSY) {
      return;
    }
    throw;
  }
  part();
}

SHARDMESH_INLINE void sweep(std::string const& root, bool whole) {
  if (!PosixStorage::exists(root)) {
    return;
  }
  auto const path_of = [&root](std::string const& number) {
    std::string const name = std::string(step_mark) + number;
    return step_of(name) ? std::optional(root + "/" + name) : std::nullopt;
  };
  for (std::string const& name : PosixStorage::list(root)) {
    std::string const path = root + "/" + name;
    std::size_t const mark = name.find(PosixStorage::temporary_mark);
    std::string const locked = SaveLock::target_of(name);
    if (name.starts_with(trash_mark)) {
      if (auto const step = path_of(name.substr(trash_mark.size()))) {
        empty_trash(path, *step, whole);
      }
    } else if (mark != name.npos && step_of(name.substr(0, mark)) &&
               name.find_first_not_of("0123456789", mark + PosixStorage::temporary_mark.size()) ==
                   name.npos) {
      std::string const step = root + "/" + name.substr(0, mark);
      unless_saving(step, [&] { dissolve(path, step, OnConflict::keep_both); });
    } else if (step_of(locked)) {
      unless_saving(root + "/" + locked, [] {});  // which removes the file
    }
  }
}

SHARDMESH_INLINE std::string pack_checkpoints(std::vector<KeptCheckpoint> const& list) {
  Packer out;
  for (KeptCheckpoint const& one : list) {
    out.number(static_cast<std::uint64_t>(one.step));
    out.text(one.path);
    out.number(one.metric ? 1 : 0);
    out.number(one.metric ? std::bit_cast<std::uint64_t>(*one.metric) : 0);
    out.number(one.metric_lost ? 1 : 0);
  }
  return std::move(out).finish();
}

SHARDMESH_INLINE std::vector<KeptCheckpoint> unpack_checkpoints(std::string_view text) {
  std::vector<KeptCheckpoint> list;
  for (Unpacker in(text); !in.at_end();) {
    KeptCheckpoint& one = list.emplace_back();
    one.step = static_cast<std::int64_t>(in.number());
    one.path = in.text();
    bool const has_metric = in.number() == 1;
    double const metric = std::bit_cast<double>(in.number());
    one.metric = has_metric ? std::optional(metric) : std::nullopt;
    one.metric_lost = in.number() == 1;
  }
  return list;
}

SHARDMESH_INLINE Note note_of_metric(double metric) {
  return {std::string(metric_name), write_metric(metric)};
}

SHARDMESH_INLINE void replace_metric(std::string const& root,
                                     std::int64_t step,
                                     std::string const& path,
                                     double metric) {
  if (!PosixStorage::exists(path + "/.metadata")) {
    throw IoError(path, ENOENT,
                  "shardmesh::CheckpointManager::note_metric: there is no checkpoint of step " +
                      std::to_string(step) + " below " + root +
                      "; has its save failed, or not ended yet?");
  }
  SaveLock const lock(path, "shardmesh::CheckpointManager::note_metric");
  std::string const file = path + "/" + std::string(metric_name);
  std::string const temporary = PosixStorage::temporary_name(file);
  remove_interrupted(file);
  write_file(temporary, write_metric(metric));
  PosixStorage::rename(temporary, file);
  PosixStorage::sync_directory(path);
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
