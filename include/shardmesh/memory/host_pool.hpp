// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include <shardmesh/core/config.hpp>
#include <shardmesh/memory/huge_pages.hpp>

namespace shardmesh {
inline namespace v0 {

/// What devices want done with pages of the host once, before they are used, and undone at their end.
struct PageHook {
  /// @returns whether it could be done; where not, the pages are used as they are.
  bool (*arrive)(void* pages, std::size_t bytes) noexcept = nullptr;
  void (*leave)(void* pages, std::size_t bytes) noexcept = nullptr;
};

/// Host memory in huge pages that is used again: the kernel's work for a new page costs more than to fill one. Blocks are
/// cut from mappings, and neighbours that are free become one again. What is free stays within a bound; a mapping that is
/// free as a whole goes back to the system when there is more, the one that was used longest ago first.
///
/// Blocks are uninitialised and hold what was there before. Any thread may call it.
///
/// @tparam Pages  where mappings come from, as of `HugePages`. A template, so that its trees are compiled only where a
///                pool is used.
template <class Pages>
class BasicHostPool {
 public:
  /// Blocks are aligned to it, and their sizes are multiples of it.
  static constexpr std::size_t unit = std::size_t{1} << 16;
  /// The least that is mapped at once: what is not used of it costs addresses, not memory.
  static constexpr std::size_t least_mapped = std::size_t{32} << 20;

  /// @param most_idle  bytes that are kept free for later.
  explicit BasicHostPool(std::size_t most_idle = usual_bound()) : most_idle_(most_idle) {}
  BasicHostPool(BasicHostPool const&) = delete;
  BasicHostPool& operator=(BasicHostPool const&) = delete;
  /// @pre all blocks were given back.
  ~BasicHostPool() { release(); }

  /// A sixteenth of the machine's memory, at most 16 GiB.
  [[nodiscard]] static std::size_t usual_bound() noexcept {
    return std::min(Pages::machine_bytes() / 16, std::size_t{16} << 30);
  }

  /// @param bytes  more than 0.
  /// @throws std::bad_alloc
  [[nodiscard]] void* allocate(std::size_t bytes) {
    if (bytes > SIZE_MAX / 2) {
      throw std::bad_alloc();
    }
    std::size_t const size = (bytes + unit - 1) / unit * unit;
    std::unique_lock lock(mutex_);
    auto found = free_.lower_bound({size, nullptr});
    if (found == free_.end()) {
      found = map(std::max(size, least_mapped), false, lock);
    }
    return take(found, size);
  }

  /// @param block  what `allocate` returned; copies of devices from and to it are done.
  void deallocate(void* block) noexcept {
    std::unique_lock lock(mutex_);
    auto at = blocks_.find(static_cast<std::byte*>(block));
    in_use_ -= at->second.size;
    idle_ += at->second.size;
    // The place in the set of free blocks was kept: to give back must not need memory.
    typename Free::node_type place = std::move(at->second.place);
    if (auto const next = std::next(at); is_free_in(next, at->second.mapping)) {
      at->second.size += next->second.size;
      free_.erase({next->second.size, next->first});
      blocks_.erase(next);
    }
    if (at != blocks_.begin() && is_free_in(std::prev(at), at->second.mapping)) {
      auto const before = std::prev(at);
      free_.erase({before->second.size, before->first});
      before->second.size += at->second.size;
      blocks_.erase(at);
      at = before;
    }
    at->second.free = true;
    place.value() = {at->second.size, at->first};
    free_.insert(std::move(place));
    mappings_.find(at->second.mapping)->second.last_used = ++clock_;
    trim(most_idle_, lock);
  }

  /// Makes memory ready ahead of the time when somebody waits for it: maps what is missing to `bytes` of free memory, as one
  /// piece, touched by several threads, and registered with devices where there are some. The bound is raised to it.
  /// @throws std::bad_alloc
  void warm(std::size_t bytes) {
    std::unique_lock lock(mutex_);
    most_idle_ = std::max(most_idle_, bytes);
    if (idle_ < bytes) {
      static_cast<void>(map(bytes - idle_, true, lock));
    }
  }

  /// Sets the bound of what is kept free; 0 keeps nothing.
  void keep_at_most(std::size_t bytes) noexcept {
    std::unique_lock lock(mutex_);
    most_idle_ = bytes;
    trim(bytes, lock);
  }
  /// Gives back all that is free as a whole mapping; the bound stays.
  void release() noexcept {
    std::unique_lock lock(mutex_);
    trim(0, lock);
  }

  /// From now on pages are prepared as they are mapped, those that are there when they are taken next.
  void use(PageHook const& hook) noexcept {
    std::lock_guard const lock(mutex_);
    hook_ = hook;
  }
  /// Has the hook prepared the pages of a block?
  [[nodiscard]] bool is_prepared(void* block) const {
    std::lock_guard const lock(mutex_);
    return mappings_.find(blocks_.find(static_cast<std::byte*>(block))->second.mapping)
        ->second.prepared;
  }

  /// Bytes that are free, and stay for later.
  [[nodiscard]] std::size_t idle() const {
    std::lock_guard const lock(mutex_);
    return idle_;
  }
  /// Bytes in blocks that were not given back.
  [[nodiscard]] std::size_t in_use() const {
    std::lock_guard const lock(mutex_);
    return in_use_;
  }

 private:
  using Free = std::set<std::pair<std::size_t, std::byte*>>;  // by size
  struct Block {
    std::size_t size = 0;
    std::byte* mapping = nullptr;
    bool free = true;
    typename Free::node_type place = {};  // while it is not free
  };
  struct Mapping {
    std::size_t size = 0;
    bool prepared = false;
    std::uint64_t last_used = 0;
  };
  using Blocks = std::map<std::byte*, Block>;

  [[nodiscard]] bool is_free_in(typename Blocks::iterator block, std::byte* mapping) const {
    return block != blocks_.end() && block->second.free && block->second.mapping == mapping;
  }

  /// Adds a free block that is a mapping as a whole. The lock is not held meanwhile.
  typename Free::iterator map(std::size_t bytes, bool touch, std::unique_lock<std::mutex>& lock) {
    PageHook const hook = hook_;
    lock.unlock();
    std::size_t const size = Pages::mapped(bytes);
    bool const touched = touch || hook.arrive != nullptr;
    auto* const pages = static_cast<std::byte*>(touched ? Pages::obtain(size) : Pages::map(size));
    bool const prepared = hook.arrive != nullptr && hook.arrive(pages, size);
    lock.lock();
    try {
      mappings_.emplace(pages, Mapping{size, prepared, ++clock_});
      blocks_.emplace(pages, Block{size, pages});
      typename Free::iterator const place = free_.emplace(size, pages).first;
      idle_ += size;
      return place;
    } catch (...) {
      blocks_.erase(pages);
      mappings_.erase(pages);
      give_back(pages, {size, prepared}, hook);
      throw;
    }
  }

  [[nodiscard]] std::byte* take(typename Free::iterator found, std::size_t size) {
    auto const at = blocks_.find(found->second);
    Block& block = at->second;
    if (block.size > size) {
      std::byte* const rest = at->first + size;
      blocks_.emplace_hint(std::next(at), rest, Block{block.size - size, block.mapping});
      try {
        free_.emplace(block.size - size, rest);
      } catch (...) {
        blocks_.erase(rest);
        throw;
      }
    }
    block.place = free_.extract(found);
    block.size = size;
    block.free = false;
    idle_ -= size;
    in_use_ += size;
    Mapping& mapping = mappings_.find(block.mapping)->second;
    if (!mapping.prepared && hook_.arrive != nullptr) {
      mapping.prepared = hook_.arrive(block.mapping, mapping.size);
    }
    return at->first;
  }

  /// Gives back mappings that are free as a whole until at most so many bytes are free.
  void trim(std::size_t most, std::unique_lock<std::mutex>& lock) noexcept {
    while (idle_ > most) {
      auto oldest = mappings_.end();
      for (auto one = mappings_.begin(); one != mappings_.end(); ++one) {
        Block const& block = blocks_.find(one->first)->second;
        if (block.free && block.size == one->second.size &&
            (oldest == mappings_.end() || one->second.last_used < oldest->second.last_used)) {
          oldest = one;
        }
      }
      if (oldest == mappings_.end()) {
        return;
      }
      std::byte* const pages = oldest->first;
      Mapping const mapping = oldest->second;
      free_.erase({mapping.size, pages});
      blocks_.erase(pages);
      mappings_.erase(oldest);
      idle_ -= mapping.size;
      PageHook const hook = hook_;
      lock.unlock();
      give_back(pages, mapping, hook);
      lock.lock();
    }
  }

  static void give_back(std::byte* pages, Mapping const& mapping, PageHook const& hook) noexcept {
    if (mapping.prepared) {
      hook.leave(pages, mapping.size);
    }
    Pages::give_back(pages, mapping.size);
  }

  mutable std::mutex mutex_;
  Blocks blocks_;  // by address
  Free free_;
  std::map<std::byte*, Mapping> mappings_;  // by address
  PageHook hook_;
  std::size_t most_idle_;
  std::size_t idle_ = 0;
  std::size_t in_use_ = 0;
  std::uint64_t clock_ = 0;
};

/// That of the process.
using HostPool = BasicHostPool<HugePages>;

/// The host memory of the process for states that are offloaded or gathered, snapshots, what a load stages and what a save
/// writes from (decision 0018).
///
/// ```
/// sm::host_pool().warm(std::size_t{13} << 30);    // before somebody waits for it
/// sm::host_pool().keep_at_most(std::size_t{1} << 30);
/// sm::host_pool().release();                      // to the system, now
/// ```
template <class Pool = HostPool>
[[nodiscard]] SHARDMESH_EXPORT Pool& host_pool() {
  // Never destroyed: tensors may outlive every static.
  static auto* const pool = new Pool;
  return *pool;
}

}  // namespace v0
}  // namespace shardmesh
