// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/detail/on_threads.hpp>
#include <shardmesh/checkpoint/detail/stage.hpp>
#include <shardmesh/checkpoint/load_plan.hpp>
#include <shardmesh/checkpoint/storage/checked_run.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/host_block.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A unit that this rank reads, and where its elements go.
struct ReadTask {
  ReadUnit const* unit = nullptr;
  std::vector<StagedPlace> places;   ///< that take them as they are stored
  StagedTensor* converts = nullptr;  ///< this rank's tensor, if it is of another dtype
};

/// Bytes between the first element of a box and that of one in it.
[[nodiscard]] inline std::ptrdiff_t bytes_to(Box const& inner,
                                             Box const& box,
                                             Shape const& strides) {
  index_t at = 0;
  for (std::size_t d = 0; d < strides.size(); ++d) {
    at += (inner.offset[d] - box.offset[d]) * strides[d];
  }
  return static_cast<std::ptrdiff_t>(at);
}

/// Copies the elements of `box` that a place wants.
/// @param from  the first of them; `strides` in bytes.
inline void put(StagedPlace const& place,
                Box const& box,
                std::byte const* from,
                Shape const& strides,
                std::size_t element) {
  if (auto const common = intersect(place.box, box)) {
    HostMemory::copy({from + bytes_to(*common, box, strides),
                      place.first + bytes_to(*common, place.box, place.strides), common->extent,
                      strides, place.strides, element});
  }
}

/// Reads units of a checkpoint on several threads: large ones through a slot that stays in the cache of a processor, from which
/// rows go to all their places; others, and those that must be converted, whole.
/// @tparam C  as of `LoadJob`.
template <Catalog C>
class UnitReader {
 public:
  /// @param keys     of the catalog.
  /// @param threads  that read, the calling one included.
  UnitReader(C& catalog, std::vector<std::string> const& keys, std::size_t threads)
      : catalog_(catalog), keys_(keys), threads_(threads) {}

  /// @param done  counts bytes.
  void read(std::vector<ReadTask> const& tasks, std::atomic<std::uint64_t>& done) {
    std::vector<std::size_t> const first = batches(tasks);
    on_threads<HostBlock>(first.size() - 1, threads_, [&](std::size_t i, HostBlock& slot) {
      std::size_t const count = first[i + 1] - first[i];
      if (count > 1) {
        read_small(std::span(tasks).subspan(first[i], count), done);
        return;
      }
      ReadTask const& task = tasks[first[i]];
      if (!read_run(task, slot)) {
        std::unique_lock lock(mutex_);
        StoredBox const data = read_now(*task.unit);
        lock.unlock();
        take_whole(task, data);
      }
      done += task.unit->bytes();
    });
  }

 private:
  static constexpr std::uint64_t slot_bytes = std::uint64_t{1} << 20;
  static constexpr std::uint64_t small_bytes = std::uint64_t{1} << 16;
  static constexpr std::size_t most_in_batch = 256;

  /// The first task of each batch, and the number of tasks. Whole items that are small are read many at a time: their
  /// readers would meet at the catalog's lock for each of them.
  [[nodiscard]] std::vector<std::size_t> batches(std::vector<ReadTask> const& tasks) const {
    std::vector<std::size_t> first;
    bool open = false;  // may the last batch grow?
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      bool const small = is_small(*tasks[i].unit);
      if (!(small && open && i - first.back() < most_in_batch)) {
        first.push_back(i);
      }
      open = small;
    }
    first.push_back(tasks.size());
    return first;
  }
  [[nodiscard]] bool is_small(ReadUnit const& unit) const {
    return unit.bytes() <= small_bytes &&
           unit.part == catalog_.tensor(keys_[unit.key])->boxes[unit.box];
  }

  void read_small(std::span<ReadTask const> tasks, std::atomic<std::uint64_t>& done) {
    std::lock_guard const lock(mutex_);
    for (ReadTask const& task : tasks) {
      take_whole(task, read_now(*task.unit));
      done += task.unit->bytes();
    }
  }

  /// @returns false for what must be read whole.
  [[nodiscard]] bool read_run(ReadTask const& task, HostBlock& slot) {
    if (task.converts != nullptr) {
      return false;
    }
    ReadUnit const& unit = *task.unit;
    std::optional<CheckedRun> run;
    {
      std::lock_guard const lock(mutex_);
      run = catalog_.open_run(keys_[unit.key], unit.box, unit.part);
    }
    if (run) {
      take_run(*run, task, slot);
    }
    return run.has_value();
  }

  static void take_run(CheckedRun& run, ReadTask const& task, HostBlock& slot) {
    ReadUnit const& unit = *task.unit;
    std::size_t const element = size_of(unit.dtype);
    Shape const strides = byte_strides(unit.part.extent, element);
    for (Box const& slab : cut_rows(unit.part, element, slot_bytes)) {
      auto const bytes = static_cast<std::size_t>(slab.volume()) * element;
      if (slot.size() < bytes) {
        slot = HostBlock(std::max<std::size_t>(bytes, slot_bytes));
      }
      run.read(slot.span().first(bytes));
      for (StagedPlace const& place : task.places) {
        put(place, slab, slot.data(), strides, element);
      }
    }
  }

  static void take_whole(ReadTask const& task, StoredBox const& data) {
    ReadUnit const& unit = *task.unit;
    std::byte const* const first = data.bytes.data() + data.first;
    for (StagedPlace const& place : task.places) {
      put(place, unit.part, first, data.strides, size_of(unit.dtype));
    }
    if (task.converts == nullptr) {
      return;
    }
    for (Piece const& piece : task.converts->pieces()) {
      if (auto const common = intersect(piece.box, unit.part)) {
        task.converts->place(piece, *common, first_of(data, unit.part, *common), data.strides);
      }
    }
  }

  [[nodiscard]] StoredBox read_now(ReadUnit const& unit) {
    return catalog_.read_part(keys_[unit.key], unit.box, unit.part);
  }

  C& catalog_;
  std::vector<std::string> const& keys_;
  std::size_t threads_;
  std::mutex mutex_;  // of the catalog
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
