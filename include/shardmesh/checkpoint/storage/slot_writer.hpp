// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/storage/direct_write.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/memory/host_block.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Writes a file through a few slots of memory: while the caller fills one, and sums what is in it, a thread writes those
/// before it. Every byte is copied once, to a slot that stays in the cache of a processor until it is written. The thread
/// is started when the first slot is full, so that small files need none.
class SlotWriter {
 public:
  static constexpr std::size_t slot_bytes = std::size_t{4} << 20;
  static constexpr std::size_t most_slots = 3;

  /// @param file   must outlive the writer, and is written by nobody else until `flush` has returned.
  /// @param bytes  that will be written, or more: small files get a small slot.
  explicit SlotWriter(File const& file, std::uint64_t bytes = slot_bytes)
      : file_(&file),
        size_(static_cast<std::size_t>(std::clamp<std::uint64_t>(
            (bytes + direct_alignment - 1) / direct_alignment * direct_alignment + direct_alignment,
            2 * direct_alignment,
            slot_bytes))) {}
  SlotWriter(SlotWriter const&) = delete;
  SlotWriter& operator=(SlotWriter const&) = delete;
  ~SlotWriter() { stop(); }

  /// Room for the next bytes of the file, to be filled at once.
  /// @param offset  of them in the file. Whoever goes on where they end fills slots to their ends.
  /// @returns at most `wanted` bytes, at least one.
  /// @throws IoError of what was written before.
  [[nodiscard]] std::span<std::byte> room(std::uint64_t offset, std::size_t wanted) {
    if (slot_.used > 0 && (offset != slot_.offset + slot_.used || left() == 0)) {
      hand_over();
    }
    if (slot_.used == 0) {
      take_slot();
      slot_.offset = offset;
      slot_.first = static_cast<std::size_t>(offset % direct_alignment);
    }
    return slot_.pages.span().subspan(slot_.first + slot_.used, std::min(wanted, left()));
  }
  /// Notes that so many bytes of the room are filled.
  void filled(std::size_t count) noexcept { slot_.used += count; }

  /// Copies bytes to the file.
  void append(std::uint64_t offset, std::span<std::byte const> bytes) {
    while (!bytes.empty()) {
      std::span<std::byte> const to = room(offset, bytes.size());
      std::memcpy(to.data(), bytes.data(), to.size());
      filled(to.size());
      bytes = bytes.subspan(to.size());
      offset += to.size();
    }
  }

  /// Returns when everything is written (not yet on the disk).
  /// @throws IoError
  void flush() {
    if (slot_.used > 0 && !thread_.joinable()) {
      write(slot_);
      slot_.used = 0;
      return;
    }
    if (slot_.used > 0) {
      hand_over();
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return busy_ == 0; });
    if (error_) {
      std::rethrow_exception(error_);
    }
  }

 private:
  struct Slot {
    HostBlock pages;
    std::uint64_t offset = 0;
    std::size_t first = 0;  // byte of the slot
    std::size_t used = 0;
  };

  [[nodiscard]] std::size_t left() const noexcept { return size_ - slot_.first - slot_.used; }

  /// Makes the current slot an empty one.
  void take_slot() {
    if (slot_.pages.size() > 0) {
      return;
    }
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return made_ < most_slots || !free_.empty(); });
      if (!free_.empty()) {
        slot_.pages = std::move(free_.back());
        free_.pop_back();
        return;
      }
    }
    slot_.pages = HostBlock(size_);
    ++made_;
  }

  /// Gives the current slot to the thread that writes, or writes it where there can be none.
  void hand_over() {
    if (!thread_.joinable()) {
      try {
        free_.reserve(most_slots);
        thread_ = std::thread([this] { work(); });
      } catch (std::system_error const&) {
        write(slot_);
        slot_.used = 0;
        return;
      }
    }
    std::lock_guard const lock(mutex_);
    if (error_) {
      std::rethrow_exception(error_);
    }
    full_.push_back(std::move(slot_));
    ++busy_;
    slot_ = {};
    changed_.notify_all();
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopped_ || !full_.empty(); });
      if (full_.empty()) {
        return;
      }
      Slot slot = std::move(full_.front());
      full_.pop_front();
      bool const failed = error_ != nullptr;
      lock.unlock();
      std::exception_ptr error;
      if (!failed) {
        try {
          write(slot);
        } catch (...) {
          error = std::current_exception();
        }
      }
      lock.lock();
      error_ = error_ ? error_ : error;
      free_.push_back(std::move(slot.pages));
      --busy_;
      changed_.notify_all();
    }
  }

  void write(Slot const& slot) const {
    write_blocks(*file_, slot.offset, slot.pages.span().subspan(slot.first, slot.used));
  }

  void stop() noexcept {
    if (thread_.joinable()) {
      {
        std::lock_guard const lock(mutex_);
        stopped_ = true;
        full_.clear();
      }
      changed_.notify_all();
      thread_.join();
    }
  }

  File const* file_;
  std::size_t size_;  // of a slot
  Slot slot_;         // that is being filled
  std::size_t made_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Slot> full_;
  std::vector<HostBlock> free_;
  std::size_t busy_ = 0;  // slots that are not written yet
  bool stopped_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
