// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/comm/call.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// The calls that a rank has made on one communicator, so that ranks can compare them later, without
/// waiting for each other. Each call adds to a chain of hashes: two ranks with the same chain after
/// the same number of calls have made the same calls in the same order. In steady state a call costs
/// a look-up and two stores.
class CallHistory {
 public:
  /// So many of the last calls can be looked at again.
  static constexpr std::size_t capacity = 1024;

  /// A call's number and fingerprint.
  struct Numbered {
    std::uint64_t number = 0;  ///< counted from 1
    std::uint64_t value = 0;
  };

  void add(Call const& call) {
    Entry& entry = entries_[count_ % capacity];
    chain_ = Fingerprint().add(chain_).add(call.fingerprint()).value();
    entry = {call.fingerprint(), chain_};
    ++count_;
    if (count_ == awaited_) {
      reached_ = {count_, chain_};
    }
    if (texts_.find(call.fingerprint()) == texts_.end()) {
      if (texts_.size() == capacity) {
        texts_.clear();
      }
      texts_.emplace(call.fingerprint(), detail::CallText(call));
    }
  }

  /// How many calls there were.
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

  /// The chain after call `number`; none if it was not made yet, or is too long ago.
  [[nodiscard]] std::optional<std::uint64_t> chain_at(std::uint64_t number) const {
    if (reached_.number == number && number > 0) {
      return reached_.value;
    }
    return is_known(number) ? std::optional(entries_[(number - 1) % capacity].chain) : std::nullopt;
  }

  /// Keeps the chain at call `number` from here on, even if that call is made only later.
  void await(std::uint64_t number) {
    if (auto const now = chain_at(number)) {
      reached_ = {number, *now};
    }
    awaited_ = number;
  }

  /// The fingerprints of the calls that are still known.
  [[nodiscard]] std::vector<Numbered> recent() const {
    std::vector<Numbered> found;
    for (std::uint64_t number = count_ > capacity ? count_ - capacity + 1 : 1; number <= count_;
         ++number) {
      found.push_back({number, entries_[(number - 1) % capacity].call});
    }
    return found;
  }

  /// A call in words.
  [[nodiscard]] detail::CallText text_at(std::uint64_t number) const {
    if (is_known(number)) {
      if (auto const found = texts_.find(entries_[(number - 1) % capacity].call);
          found != texts_.end()) {
        return found->second;
      }
    }
    return {"a call that is no longer known", ""};
  }

 private:
  struct Entry {
    std::uint64_t call = 0;
    std::uint64_t chain = 0;
  };

  [[nodiscard]] bool is_known(std::uint64_t number) const noexcept {
    return number > 0 && number <= count_ && count_ - number < capacity;
  }

  std::uint64_t count_ = 0;
  std::uint64_t chain_ = 0;
  std::uint64_t awaited_ = 0;
  Numbered reached_;
  std::array<Entry, capacity> entries_{};
  std::unordered_map<std::uint64_t, detail::CallText> texts_;  // by fingerprint
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
