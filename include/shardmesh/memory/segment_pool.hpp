// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

namespace shardmesh {
inline namespace v0 {

/// Where a `SegmentPool` gets memory from, and how it learns that work is done.
/// - `Queue`: in which work is done one after the other; it can be compared. Members `place` (of the memory that
///   its work uses, e.g. a device) and `id`.
/// - `Mark`: a point in a queue; `mark(Mark&, Queue)`, and `has_passed(Mark const&)` when the work before it is done.
/// - `obtain(bytes)`: memory of the calling thread's place, nullptr if there is none; `give_back(pointer)`.
/// - `finish()`: waits for all work of the place.
template <class S>
concept SegmentSource =
    requires(S& source, void* pointer, typename S::Queue queue, typename S::Mark mark) {
      { source.obtain(std::size_t{}) } -> std::same_as<void*>;
      { source.give_back(pointer) } noexcept;
      { source.mark(mark, queue) } noexcept;
      { source.has_passed(mark) } noexcept -> std::same_as<bool>;
      { source.finish() };
      { queue.place } -> std::convertible_to<int>;
      { queue < queue } -> std::convertible_to<bool>;
    };

/// Memory in large segments that stay where they are, cut into blocks as they are asked for: what others have once
/// been shown of it (another process that has mapped a segment) stays valid.
///
/// A block that is given back behind the work of a queue is at once there for the next work of that queue; another
/// queue gets it when the work is done. The smallest block that fits is taken; neighbours that are free become one.
/// Any thread may call it.
template <SegmentSource Source>
class SegmentPool {
 public:
  using Queue = typename Source::Queue;
  static constexpr std::size_t alignment = 512;
  /// Blocks up to this size have segments of their own, so that they do not cut up large ones.
  static constexpr std::size_t largest_small = std::size_t{1} << 20;

  /// Where in its segment a piece of memory lies.
  struct Place {
    void* segment = nullptr;
    std::size_t offset = 0;
  };

  explicit SegmentPool(Source source = {}) : source_(std::move(source)) {}
  SegmentPool(SegmentPool const&) = delete;
  SegmentPool& operator=(SegmentPool const&) = delete;
  ~SegmentPool() {
    for (auto const& [start, segment] : segments_) {
      source_.give_back(start);
    }
  }

  /// @param queue  whose work uses the memory first, of the calling thread's place.
  /// @returns nullptr for 0 bytes, and if there is no memory, even after all work has been waited for.
  [[nodiscard]] void* allocate(std::size_t bytes, Queue queue) {
    if (bytes == 0) {
      return nullptr;
    }
    std::size_t const size = (bytes + alignment - 1) / alignment * alignment;
    std::lock_guard const lock(mutex_);
    if (auto const found = smallest(size, queue); found != free_.end()) {
      return take(found, size, queue);
    }
    if (auto const found = passed(size, queue.place); found != free_.end()) {
      return take(found, size, queue);
    }
    if (add_segment(size, queue)) {
      return take(smallest(size, queue), size, queue);
    }
    source_.finish();
    settle(queue);
    if (auto const found = smallest(size, queue); found != free_.end()) {
      return take(found, size, queue);
    }
    release(queue.place);  // free pieces of several segments may make one
    return add_segment(size, queue) ? take(smallest(size, queue), size, queue) : nullptr;
  }

  /// @param pointer what `allocate` returned.
  /// @param queue   behind whose work the memory is free.
  void deallocate(void* pointer, Queue queue) noexcept {
    if (pointer == nullptr) {
      return;
    }
    std::lock_guard const lock(mutex_);
    auto const at = blocks_.find(static_cast<std::byte*>(pointer));
    Block& block = at->second;
    block.queue = queue;
    block.queue.place = block.segment->second.place;
    uses_.find(block.queue.place)->second.bytes -= block.bytes;
    if (block.mark) {
      source_.mark(*block.mark, block.queue);
    }
    put(at);
  }

  /// Where `pointer`, into a block in use or free, lies; none if it is not the pool's. A segment that was asked for is
  /// never given back.
  [[nodiscard]] std::optional<Place> locate(void const* pointer) {
    auto* const byte = static_cast<std::byte*>(const_cast<void*>(pointer));
    std::lock_guard const lock(mutex_);
    auto at = segments_.upper_bound(byte);
    if (at == segments_.begin()) {
      return std::nullopt;
    }
    --at;
    auto const offset = static_cast<std::size_t>(byte - at->first);
    if (offset >= at->second.bytes) {
      return std::nullopt;
    }
    at->second.shown = true;
    return Place{at->first, offset};
  }

  /// Waits for all work of the queue's place, and gives back what nobody uses there, but for segments that have been
  /// shown.
  /// @param queue  of the calling thread's place.
  void trim(Queue queue) {
    std::lock_guard const lock(mutex_);
    source_.finish();
    settle(queue);
    release(queue.place);
  }

  /// Bytes of the blocks of a place that are in use.
  [[nodiscard]] std::size_t used(int place) const {
    std::lock_guard const lock(mutex_);
    auto const at = uses_.find(place);
    return at == uses_.end() ? 0 : at->second.bytes;
  }
  /// The most that were in use since the last call.
  [[nodiscard]] std::size_t take_peak(int place) {
    std::lock_guard const lock(mutex_);
    Use& use = uses_[place];
    return std::exchange(use.peak, use.bytes);
  }

  /// Bytes that the pool has obtained from its source.
  [[nodiscard]] std::size_t obtained() const {
    std::lock_guard const lock(mutex_);
    std::size_t sum = 0;
    for (auto const& [start, segment] : segments_) {
      sum += segment.bytes;
    }
    return sum;
  }

 private:
  using Mark = typename Source::Mark;
  struct Segment {
    std::size_t bytes = 0;
    int place = 0;
    bool small = false;
    bool shown = false;
  };
  struct Use {
    std::size_t bytes = 0;
    std::size_t peak = 0;
  };
  /// How free blocks are found: by kind, queue, size.
  using Key = std::tuple<bool, Queue, std::size_t, std::byte*>;
  using Free = std::set<Key>;
  struct Block {
    std::size_t bytes = 0;
    typename std::map<std::byte*, Segment>::iterator segment;
    Queue queue{};
    std::optional<Mark> mark;         // large blocks: behind the work that used it
    typename Free::node_type ticket;  // while it is in use: giving it back must not need memory
    bool free = false;
  };
  using Blocks = std::map<std::byte*, Block>;

  [[nodiscard]] static constexpr std::size_t segment_bytes(std::size_t size) noexcept {
    constexpr std::size_t mib = std::size_t{1} << 20;
    return size <= largest_small ? 8 * mib
           : size <= 16 * mib    ? 64 * mib
                                 : (size + 2 * mib - 1) / (2 * mib) * (2 * mib);
  }

  [[nodiscard]] typename Free::iterator smallest(std::size_t size, Queue queue) const {
    bool const small = size <= largest_small;
    auto const at = free_.lower_bound(Key{small, queue, size, nullptr});
    bool const fits =
        at != free_.end() && std::get<bool>(*at) == small && std::get<Queue>(*at) == queue;
    return fits ? at : free_.end();
  }

  /// A block of another queue whose work is done.
  [[nodiscard]] typename Free::iterator passed(std::size_t size, int place) {
    auto best = free_.end();
    if (size <= largest_small) {
      return best;  // these have no marks
    }
    for (auto at = free_.begin(); at != free_.end(); ++at) {
      auto const& [small, queue, bytes, start] = *at;
      if (!small && queue.place == place && bytes >= size &&
          (best == free_.end() || bytes < std::get<std::size_t>(*best)) &&
          source_.has_passed(*blocks_.find(start)->second.mark)) {
        best = at;
      }
    }
    return best;
  }

  /// Takes a free block, and leaves what is too much of it free.
  [[nodiscard]] void* take(typename Free::iterator found, std::size_t size, Queue queue) {
    std::byte* const start = std::get<std::byte*>(*found);
    Use& use = uses_[queue.place];
    Block& block = blocks_.find(start)->second;
    if (block.bytes - size >= (block.segment->second.small ? alignment : largest_small)) {
      Block rest;
      rest.bytes = block.bytes - size;
      rest.segment = block.segment;
      rest.queue = queue;
      rest.free = true;
      if (block.mark) {
        rest.mark = spare_mark(queue.place);
        source_.mark(*rest.mark, queue);  // behind what the whole block waits for
      }
      Free node;
      node.insert(key_of(start + size, rest));
      blocks_.emplace(start + size, std::move(rest));
      free_.merge(node);
      block.bytes = size;
    }
    block.ticket = free_.extract(found);
    block.free = false;
    block.queue = queue;
    use.bytes += block.bytes;
    use.peak = std::max(use.peak, use.bytes);
    return start;
  }

  [[nodiscard]] static Key key_of(std::byte* start, Block const& block) {
    return {block.segment->second.small, block.queue, block.bytes, start};
  }

  /// Makes a block free, together with neighbours of the same queue that are.
  void put(typename Blocks::iterator at) noexcept {
    typename Free::node_type ticket = std::move(at->second.ticket);
    if (auto const next = std::next(at); next != blocks_.end() && joins(*at, *next)) {
      at->second.bytes += next->second.bytes;
      drop(next);
    }
    if (at != blocks_.begin()) {
      if (auto const before = std::prev(at); joins(*before, *at)) {
        free_.erase(key_of(before->first, before->second));
        before->second.bytes += at->second.bytes;
        std::swap(before->second.mark, at->second.mark);  // the later one
        keep(at->second);
        blocks_.erase(at);
        at = before;
      }
    }
    at->second.free = true;
    ticket.value() = key_of(at->first, at->second);
    free_.insert(std::move(ticket));
  }

  /// Does the second, which is free, follow the first in memory and in their queue?
  [[nodiscard]] static bool joins(typename Blocks::value_type const& first,
                                  typename Blocks::value_type const& second) {
    Block const& a = first.second;
    Block const& b = second.second;
    return a.segment == b.segment && first.first + a.bytes == second.first && a.queue == b.queue &&
           (a.free || b.free);
  }

  void drop(typename Blocks::iterator block) noexcept {
    free_.erase(key_of(block->first, block->second));
    keep(block->second);
    blocks_.erase(block);
  }

  /// Keeps the mark of a block that is no more, for another one of its place.
  void keep(Block& block) noexcept {
    if (block.mark) {
      auto const at = marks_.find(block.segment->second.place);
      if (at->second.size() < at->second.capacity()) {
        at->second.push_back(std::move(*block.mark));
      }
      block.mark.reset();
    }
  }
  /// @pre the calling thread is at the place.
  [[nodiscard]] Mark spare_mark(int place) {
    std::vector<Mark>& spare = marks_[place];
    spare.reserve(64);
    if (spare.empty()) {
      return Mark();
    }
    Mark mark = std::move(spare.back());
    spare.pop_back();
    return mark;
  }

  [[nodiscard]] bool add_segment(std::size_t size, Queue queue) {
    bool const small = size <= largest_small;
    std::size_t bytes = segment_bytes(size);
    auto* start = static_cast<std::byte*>(source_.obtain(bytes));
    if (start == nullptr && bytes > size) {
      bytes = size;
      start = static_cast<std::byte*>(source_.obtain(bytes));
    }
    if (start == nullptr) {
      return false;
    }
    auto const segment = segments_.emplace(start, Segment{bytes, queue.place, small, false}).first;
    Block whole;
    whole.bytes = bytes;
    whole.segment = segment;
    whole.queue = queue;
    whole.free = true;
    if (!small) {
      whole.mark = spare_mark(queue.place);
    }
    free_.insert(key_of(start, whole));
    blocks_.emplace(start, std::move(whole));
    return true;
  }

  /// All work of a place is done: its free blocks are the queue's.
  void settle(Queue queue) {
    for (auto at = blocks_.begin(); at != blocks_.end();) {
      Block& block = at->second;
      if (!block.free || block.segment->second.place != queue.place) {
        ++at;
        continue;
      }
      block.ticket = free_.extract(key_of(at->first, block));
      block.free = false;
      block.queue = queue;
      std::byte* const start = at->first;
      put(at);
      at = blocks_.upper_bound(start);
    }
  }

  /// Gives back segments that nobody uses or has been shown.
  void release(int place) {
    for (auto at = segments_.begin(); at != segments_.end();) {
      auto const block = blocks_.find(at->first);
      if (at->second.place == place && !at->second.shown && block->second.free &&
          block->second.bytes == at->second.bytes) {
        drop(block);
        source_.give_back(at->first);
        at = segments_.erase(at);
      } else {
        ++at;
      }
    }
  }

  Source source_;
  mutable std::mutex mutex_;
  std::map<std::byte*, Segment> segments_;
  Blocks blocks_;
  Free free_;
  std::map<int, std::vector<Mark>> marks_;  // of blocks that are no more, by place
  std::map<int, Use> uses_;                 // by place
};

}  // namespace v0
}  // namespace shardmesh
