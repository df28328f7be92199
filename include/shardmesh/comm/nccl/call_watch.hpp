// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/call.hpp>
#include <shardmesh/comm/nccl/beat.hpp>
#include <shardmesh/comm/nccl/operation_log.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// Compares the calls of ranks from round to round of their watchdogs, so that no call has to wait for
/// it.
///
/// In each round every rank says how many calls it has made on each communicator. The fewest and the
/// most of a communicator are the points at which the next round compares the hashes of all calls up
/// to there: the first, because a rank that hangs comes no further; the second, because ranks that do
/// not hang have passed it by then. Ranks that differ show each other the fingerprints of their last
/// calls, then the first call that is not the same, and all throw. Every rank sees the same beats, so
/// all ranks do this in the same rounds, also those that are not in that communicator.
class CallWatch {
 public:
  /// This rank's part of a beat.
  [[nodiscard]] std::vector<std::uint64_t> report(std::vector<OperationLog*> const& logs) {
    std::vector<std::uint64_t> words;
    for (OperationLog* const log : logs) {
      std::uint64_t const group = id_of(log->group());
      Points const points = points_[group];
      log->with_history([&](CallHistory& history) {
        auto const behind = history.chain_at(points.behind);
        auto const ahead = history.chain_at(points.ahead);
        for (std::uint64_t const word :
             {group, history.count(), behind ? points.behind : 0, behind.value_or(0),
              ahead ? points.ahead : 0, ahead.value_or(0)}) {
          words.push_back(word);
        }
      });
    }
    return words;
  }

  /// Takes in the reports of all ranks.
  void compare(std::vector<Beat> const& beats, std::vector<OperationLog*> const& logs) {
    std::map<std::uint64_t, Group> groups;
    for (Beat const& beat : beats) {
      for (std::size_t i = 0; i + words_of_group <= beat.words.size(); i += words_of_group) {
        groups[beat.words[i]].add(&beat.words[i]);
      }
    }
    points_.clear();
    for (auto const& [id, group] : groups) {
      points_[id] = {group.fewest, group.most};
      if (group.differ && !disputed_) {
        disputed_ = id;
      }
    }
    for (OperationLog* const log : logs) {
      Points const points = points_[id_of(log->group())];
      log->with_history([&](CallHistory& history) { history.await(points.ahead); });
    }
  }

  /// Have ranks made different calls?
  [[nodiscard]] bool disputed() const noexcept { return disputed_.has_value(); }

  /// What this rank has to say in a dispute.
  [[nodiscard]] Beat argue(std::vector<OperationLog*> const& logs) const {
    Beat beat{first_ ? Beat::call : Beat::calls, 0, "", "", {}};
    for (OperationLog* const log : logs) {
      if (id_of(log->group()) != *disputed_) {
        continue;
      }
      log->with_history([&](CallHistory& history) {
        if (first_) {
          beat.number = *first_;
          beat.text = history.text_at(*first_).packed();
        } else {
          for (CallHistory::Numbered const& one : history.recent()) {
            beat.words.push_back(one.number);
            beat.words.push_back(one.value);
          }
        }
      });
    }
    return beat;
  }

  /// Takes in what all ranks have said in a dispute.
  /// @param world  the ranks in the numbering of the whole job.
  /// @throws MismatchError once both sides are known.
  void judge(std::vector<Beat> const& beats, std::vector<int> const& world) {
    if (!first_) {
      find_first(beats);
      return;
    }
    auto const text = [&beats](std::size_t rank) {
      return detail::CallText::unpack(beats[rank].text);
    };
    throw MismatchError(
        detail::mismatch_text(world[side_a_], text(side_a_), world[side_b_], text(side_b_)));
  }

 private:
  static constexpr std::size_t words_of_group = 6;

  struct Points {
    std::uint64_t behind = 0;
    std::uint64_t ahead = 0;
  };

  /// What the ranks of one communicator report.
  struct Group {
    std::uint64_t fewest = ~std::uint64_t{0};
    std::uint64_t most = 0;
    std::map<std::uint64_t, std::uint64_t> chains;  // by number
    bool differ = false;

    void add(std::uint64_t const* words) {
      fewest = std::min(fewest, words[1]);
      most = std::max(most, words[1]);
      for (std::size_t const at : {std::size_t{2}, std::size_t{4}}) {
        if (words[at] > 0) {
          auto const [known, is_new] = chains.emplace(words[at], words[at + 1]);
          differ = differ || (!is_new && known->second != words[at + 1]);
        }
      }
    }
  };

  [[nodiscard]] static std::uint64_t id_of(std::string const& group) {
    return Fingerprint().add(group).value();
  }

  /// Finds the first call that two ranks know and that is not the same.
  void find_first(std::vector<Beat> const& beats) {
    struct Said {
      std::size_t rank;
      std::uint64_t call;
    };
    std::map<std::uint64_t, Said> calls;
    std::uint64_t first = ~std::uint64_t{0};
    for (std::size_t rank = 0; rank < beats.size(); ++rank) {
      for (std::size_t i = 0; i + 1 < beats[rank].words.size(); i += 2) {
        std::uint64_t const number = beats[rank].words[i];
        std::uint64_t const call = beats[rank].words[i + 1];
        auto const [known, is_new] = calls.emplace(number, Said{rank, call});
        if (!is_new && known->second.call != call && number < first) {
          first = number;
          side_a_ = known->second.rank;
          side_b_ = rank;
        }
      }
    }
    if (first == ~std::uint64_t{0}) {
      throw MismatchError("shardmesh: ranks made different calls, too long ago to say which; every "
                          "rank must make the same calls (Checks::full compares each of them)");
    }
    first_ = first;
  }

  std::map<std::uint64_t, Points> points_;  // by communicator
  std::optional<std::uint64_t> disputed_;   // the communicator
  std::optional<std::uint64_t> first_;      // number of the first call that is not the same
  std::size_t side_a_ = 0;
  std::size_t side_b_ = 0;
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
