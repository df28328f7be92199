// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/format/pickle_cursor.hpp>
#include <shardmesh/checkpoint/format/pickle_tree.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format::detail {

/// The values that a pickle has in work: its stack with the marks on it, and its memo. Nothing is
/// taken from below a mark.
class PickleStack {
 public:
  /// @param cursor     says where a fault is; must outlive the stack.
  /// @param most_memo  entries of the memo.
  PickleStack(PickleCursor const& cursor, std::uint64_t most_memo, std::size_t most_depth)
      : cursor_(&cursor), most_memo_(most_memo), most_depth_(most_depth) {}

  void push(PickleRef ref) { values_.push_back(ref); }

  [[nodiscard]] PickleRef top() const {
    if (values_.size() <= floor()) {
      cursor_->fail("the stack has no value for it");
    }
    return values_.back();
  }
  PickleRef pop() {
    PickleRef const ref = top();
    values_.pop_back();
    return ref;
  }

  void push_mark() {
    if (marks_.size() >= most_depth_) {
      cursor_->fail("MARKs are nested deeper than " + std::to_string(most_depth_));
    }
    marks_.push_back(values_.size());
  }
  /// Where the values after the topmost mark start; removes the mark.
  [[nodiscard]] std::size_t pop_mark() {
    if (marks_.empty()) {
      cursor_->fail("no MARK is on the stack");
    }
    std::size_t const start = marks_.back();
    marks_.pop_back();
    return start;
  }

  /// Where the topmost `count` values start.
  [[nodiscard]] std::size_t start_of(std::size_t count) const {
    if (values_.size() - floor() < count) {
      cursor_->fail("the stack has fewer than " + std::to_string(count) + " values for it");
    }
    return values_.size() - count;
  }
  [[nodiscard]] std::span<PickleRef const> from(std::size_t start) const {
    return std::span<PickleRef const>(values_).subspan(start);
  }
  /// The value below position `start`, or `no_pickle_ref`.
  [[nodiscard]] PickleRef below(std::size_t start) const {
    return start > floor() ? values_[start - 1] : no_pickle_ref;
  }
  [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
  /// Bytes that it takes, at the most while it grows: the old values are then held beside twice their room.
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    std::size_t const room = values_.capacity();
    return (values_.size() == room ? 3 * room : room + room / 2) * sizeof(PickleRef) +
           memo_.size() * sizeof(PickleRef) * 33 / 32;
  }
  /// Removes the values from `start` on.
  void cut(std::size_t start) { values_.resize(start); }

  /// The value that the pickle leaves.
  [[nodiscard]] PickleRef only() const {
    if (values_.size() != 1 || !marks_.empty()) {
      cursor_->fail("the pickle leaves " + std::to_string(values_.size()) +
                    " values instead of one");
    }
    return values_.front();
  }

  void push_memo(std::size_t index) {
    if (index >= memo_.size() || memo_[index] == no_pickle_ref) {
      cursor_->fail("memo entry " + std::to_string(index) + " was never set");
    }
    push(memo_[index]);
  }
  /// Puts the topmost value into the memo, under the next number unless one is given.
  void put_memo() { put_memo(memo_count_); }
  void put_memo(std::size_t index) {
    // Picklers count up: a number far beyond the last one only asks for memory.
    if (index >= most_memo_ || index > memo_.size() + most_jump) {
      cursor_->fail("memo entry " + std::to_string(index) + " lies beyond what is allowed");
    }
    if (index >= memo_.size()) {
      memo_.resize(index + 1, no_pickle_ref);
    }
    PickleRef const value = top();
    memo_count_ += memo_[index] == no_pickle_ref ? 1U : 0U;
    memo_[index] = value;
  }

 private:
  static constexpr std::size_t most_jump = 65'536;

  [[nodiscard]] std::size_t floor() const noexcept { return marks_.empty() ? 0 : marks_.back(); }

  PickleCursor const* cursor_;
  std::uint64_t most_memo_;
  std::size_t most_depth_;
  std::vector<PickleRef> values_;
  std::vector<std::size_t> marks_;
  std::deque<PickleRef> memo_;
  std::size_t memo_count_ = 0;
};

}  // namespace format::detail
}  // namespace v0
}  // namespace shardmesh
