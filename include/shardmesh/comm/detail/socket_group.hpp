// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/call.hpp>
#include <shardmesh/comm/detail/socket_star.hpp>
#include <shardmesh/comm/detail/waiting.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A group of processes that meet through rank 0, which collects what ranks show each other and brings
/// everything to everybody.
class SocketGroup {
 public:
  using Bytes = std::vector<std::byte>;

  /// @param links  see `SocketStar`.
  SocketGroup(std::vector<Link> links,
              int rank,
              std::vector<int> world_ranks,
              Limits limits,
              std::shared_ptr<Activity> activity)
      : star_(std::move(links), rank, std::move(world_ranks), limits, std::move(activity)) {}

  [[nodiscard]] int rank() const noexcept { return star_.rank(); }
  [[nodiscard]] int size() const noexcept { return static_cast<int>(world_ranks().size()); }
  [[nodiscard]] std::vector<int> const& world_ranks() const noexcept { return star_.world(); }
  [[nodiscard]] SocketStar& star() noexcept { return star_; }

  /// How often the ranks have met: the same on all of them, whatever they met for.
  [[nodiscard]] std::uint64_t meetings() const noexcept { return sequence_; }

  /// Shows bytes to all ranks and returns everybody's.
  /// @throws RankFailed, TimeoutError, after which the group meets no more; MismatchError on every rank
  ///         if their calls differ
  [[nodiscard]] std::vector<Bytes> all_gather(std::span<std::byte const> mine, Call const& call) {
    count_meeting();
    auto const lock = star_.enter();
    Gathered gathered = gather(mine, call.fingerprint());
    if (std::size_t const other = first_other(gathered.calls); other > 0) {
      explain(call, other);
    }
    return std::move(gathered.bytes);
  }

 private:
  /// What all ranks have sent, by rank.
  struct Gathered {
    std::vector<std::uint64_t> calls;  ///< fingerprints
    std::vector<Bytes> bytes;
  };
  /// In an index, for each rank.
  struct Entry {
    std::uint64_t call;
    std::uint64_t bytes;
  };
  static constexpr std::size_t small = 4096;  // bytes that travel in the index

  [[nodiscard]] std::size_t ranks() const noexcept { return world_ranks().size(); }

  [[nodiscard]] Gathered gather(std::span<std::byte const> mine, std::uint64_t call) {
    star_.require_good();
    try {
      Gathered all = rank() == 0 ? gather_and_send(mine, call) : send_and_receive(mine, call);
      ++sequence_;
      return all;
    } catch (...) {
      star_.drop_all();
      throw;
    }
  }

  /// All ranks have seen that the call of rank `other` is not rank 0's: each says what it is in.
  [[noreturn]] void explain(Call const& call, std::size_t other) {
    std::string const mine = CallText(call).packed();
    Gathered const all = gather(std::as_bytes(std::span(mine)), 0);
    auto const text = [&all](std::size_t rank) {
      return CallText::unpack(SocketStar::text_of(all.bytes[rank]));
    };
    throw MismatchError(
        mismatch_text(world_ranks()[0], text(0), world_ranks()[other], text(other)));
  }

  void require_number(std::size_t from, Frame const& frame) {
    if (frame.number != sequence_) {
      star_.fail_all(
          from, MismatchError(
                    star_.name(from) + " is in call " + std::to_string(frame.number) + ", rank " +
                    std::to_string(world_ranks()[static_cast<std::size_t>(rank())]) + " in call " +
                    std::to_string(sequence_) + "; every rank must make the same calls"));
    }
  }

  [[nodiscard]] Gathered gather_and_send(std::span<std::byte const> mine, std::uint64_t call) {
    star_.wait_until([this](std::size_t i) { return !star_.peer(i).frames.empty(); },
                     " did not arrive");
    star_.require_good();
    Gathered all{std::vector<std::uint64_t>(ranks(), call), std::vector<Bytes>(ranks())};
    std::vector<std::uint64_t> tags(ranks(), 0);
    all.bytes[0].assign(mine.begin(), mine.end());
    tags[0] = star_.peer(0).link.tag_of(mine);
    for (std::size_t i = 1; i < ranks(); ++i) {
      Frame frame = std::move(star_.peer(i).frames.front());
      star_.peer(i).frames.pop_front();
      require_number(i, frame);
      all.calls[i] = frame.call;
      tags[i] = frame.tag;
      all.bytes[i] = std::move(frame.bytes);
    }
    Bytes index;
    auto const add = [&index](std::span<std::byte const> bytes) {
      index.insert(index.end(), bytes.begin(), bytes.end());
    };
    for (std::size_t i = 0; i < ranks(); ++i) {
      Entry const entry{all.calls[i], all.bytes[i].size()};
      add(std::as_bytes(std::span(&entry, 1)));
    }
    for (Bytes const& bytes : all.bytes) {
      if (bytes.size() <= small) {
        add(bytes);
      }
    }
    std::uint64_t const index_tag = star_.peer(0).link.tag_of(index);
    for (std::size_t i = 1; i < ranks(); ++i) {
      star_.peer(i).link.queue(FrameKind::index, sequence_, call, index, index_tag);
      for (std::size_t part = 0; part < ranks(); ++part) {
        if (part != i && all.bytes[part].size() > small) {
          star_.peer(i).link.queue(FrameKind::part, part, call, all.bytes[part], tags[part]);
        }
      }
    }
    star_.wait_until([this](std::size_t i) { return star_.peer(i).link.is_idle(); },
                     " did not take its data", SocketStar::Reading::no);
    return all;
  }

  [[nodiscard]] Gathered send_and_receive(std::span<std::byte const> mine, std::uint64_t call) {
    SocketStar::Peer& root = star_.peer(0);
    root.link.queue(FrameKind::offer, sequence_, call, mine);
    Gathered all;
    std::vector<std::uint64_t> awaited;  // by rank, the bytes of the parts to come
    star_.wait_until(
        [&](std::size_t) {
          for (; !root.frames.empty(); root.frames.pop_front()) {
            Frame& frame = root.frames.front();
            bool const is_part = frame.kind == FrameKind::part && frame.number < awaited.size();
            if (frame.kind == FrameKind::index && awaited.empty()) {
              require_number(0, frame);
              awaited = read_index(frame.bytes, mine, all);
            } else if (is_part && frame.bytes.size() == awaited[frame.number]) {
              awaited[frame.number] = 0;
              all.bytes[frame.number] = std::move(frame.bytes);
            } else {
              star_.refuse(0);
            }
          }
          return !awaited.empty() && std::all_of(awaited.begin(), awaited.end(),
                                                 [](std::uint64_t bytes) { return bytes == 0; });
        },
        " did not answer");
    return all;
  }

  /// @returns for each rank the bytes that are to come in a part.
  [[nodiscard]] std::vector<std::uint64_t> read_index(Bytes const& index,
                                                      std::span<std::byte const> mine,
                                                      Gathered& all) {
    std::vector<std::uint64_t> awaited(ranks(), 0);
    all.bytes.resize(ranks());
    std::size_t at = ranks() * sizeof(Entry);
    for (std::size_t i = 0; i < ranks() && index.size() >= ranks() * sizeof(Entry); ++i) {
      Entry entry{};
      std::memcpy(&entry, index.data() + i * sizeof(entry), sizeof(entry));
      all.calls.push_back(entry.call);
      bool const is_mine = i == static_cast<std::size_t>(rank());
      if (is_mine ? entry.bytes != mine.size()
                  : entry.bytes <= small && entry.bytes > index.size() - at) {
        break;
      }
      auto const length = static_cast<std::ptrdiff_t>(entry.bytes);
      if (is_mine) {
        all.bytes[i].assign(mine.begin(), mine.end());
      } else if (entry.bytes <= small) {
        auto const first = index.begin() + static_cast<std::ptrdiff_t>(at);
        all.bytes[i].assign(first, first + length);
      } else {
        awaited[i] = entry.bytes;
      }
      at += entry.bytes <= small ? static_cast<std::size_t>(entry.bytes) : 0;
    }
    if (all.calls.size() != ranks() || at != index.size()) {
      star_.refuse(0);
    }
    return awaited;
  }

  SocketStar star_;
  std::uint64_t sequence_ = 0;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
