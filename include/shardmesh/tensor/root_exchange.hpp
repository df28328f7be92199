// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/range.hpp>
#include <shardmesh/memory/buffer.hpp>
#include <shardmesh/plan/moves.hpp>
#include <shardmesh/plan/tile.hpp>
#include <shardmesh/tensor/execute.hpp>

namespace shardmesh {
inline namespace v0 {

/// How whole tensors travel between the ranks that hold their parts and a root.
struct GatherOptions {
  /// Who gets the whole, in the numbering of the whole job; none: the first rank.
  std::vector<int> roots = {};
  /// Most bytes of temporary memory that the exchange may use on any rank.
  std::size_t ceiling_bytes = std::size_t{256} << 20;
};

/// @throws InvalidArgument if the ceiling does not hold two elements of the largest type.
inline void check_ceiling(GatherOptions const& options) {
  if (options.ceiling_bytes < 32) {
    throw InvalidArgument("shardmesh::GatherOptions: a ceiling of " +
                          std::to_string(options.ceiling_bytes) +
                          " bytes does not hold two elements of 16 bytes; raise ceiling_bytes");
  }
}

/// What an exchange with a root came to on the calling rank.
struct GatherReport {
  std::size_t peak_staging_bytes = 0;  ///< temporary memory in use at once
  std::size_t received_bytes = 0;      ///< from other ranks
  std::size_t sent_bytes = 0;          ///< to other ranks
  std::size_t rounds = 0;              ///< exchanges

  /// Takes in what a further exchange came to.
  void add(GatherReport const& next) {
    peak_staging_bytes = detail::larger(peak_staging_bytes, next.peak_staging_bytes);
    received_bytes += next.received_bytes;
    sent_bytes += next.sent_bytes;
    rounds += next.rounds;
  }
};

/// Which way whole tensors travel.
enum class RootDirection : std::uint8_t {
  gather,   ///< from the ranks of the layout to the root
  scatter,  ///< from the root to the ranks of the layout
};

/// One tensor that is gathered to, or scattered from, a root. Local parts lie in the memory space of
/// the exchange, the whole in memory that this space can copy from and to: its own, or the host's.
struct RootJob {
  Layout layout;
  int root = 0;  ///< rank in the layout
  DType dtype = DType::float32;
  void const* source = nullptr;  ///< the local part (gather), the whole (scatter; on the root only)
  void* target = nullptr;        ///< the whole (gather; on the root only), the local part (scatter)
  bool whole_in_space = false;   ///< lies the whole in the memory space of the exchange?
  std::string name = {};         ///< in errors; the same on all ranks
};

namespace detail {

/// An exchange with roots, for comparing it between ranks.
struct RootWords {
  RootDirection direction;
  std::span<RootJob const> jobs;
  std::size_t ceiling;

  [[nodiscard]] Fingerprint fingerprint() const {
    Fingerprint result;
    result.add(static_cast<std::uint64_t>(direction)).add(jobs.size()).add(ceiling);
    for (RootJob const& job : jobs) {
      result.add(shardmesh::fingerprint(job.layout).value())
          .add(static_cast<std::uint64_t>(job.root))
          .add(static_cast<std::uint64_t>(job.dtype))
          .add(job.name);
    }
    return result;
  }

  [[nodiscard]] std::string operator()() const {
    std::string text =
        std::string(direction == RootDirection::gather ? "a gather of " : "a scatter of ") +
        std::to_string(jobs.size()) + " tensors within " + std::to_string(ceiling) + " bytes:";
    for (RootJob const& job : jobs) {
      text += " \"" + job.name + "\" " + std::string(to_string(job.dtype)) + " " +
              to_string(job.layout) + " with root " + std::to_string(job.root) + ";";
    }
    return text;
  }
};

/// @throws InvalidArgument if the tensor is partial.
[[nodiscard]] inline RankStep root_step(RootDirection direction, RootJob const& job, int rank) {
  if (job.layout.has_partial()) {
    throw InvalidArgument("shardmesh: a partial tensor has no whole yet (" + to_string(job.layout) +
                          "); reduce it first, by redistributing it to Shard or Replicate");
  }
  Holding const parts = job.layout;
  Holding const whole = Holding::whole(job.layout.shape(), job.root);
  RankStep step =
      direction == RootDirection::gather ? moves(parts, whole, rank) : moves(whole, parts, rank);
  if (job.source == job.target) {
    step.locals.clear();  // the root's own part is in place
  }
  return step;
}

/// An exchange with roots between ranks that do not see each other's memory. Boxes are cut into tiles,
/// tiles grouped into rounds of at most half the ceiling; every rank finds the same rounds. Tiles that
/// are contiguous in the memory of the exchange travel in place, the others through one of two slots:
/// one is filled or emptied on a stream of its own while the other travels.
template <MemorySpace Space, class Comm>
class RootRounds {
 public:
  using Stream = typename Space::Stream;

  RootRounds(Comm const& comm, char const* operation, RootWords const& words, Stream stream)
      : comm_(comm),
        operation_(operation),
        words_(words),
        arguments_(words.fingerprint()),
        jobs_(words.jobs),
        gather_(words.direction == RootDirection::gather),
        main_(stream) {
    cut_into_rounds(words.direction, words.ceiling / 2);
    for (std::size_t round = 0; round + 1 < first_.size(); ++round) {
      slot_bytes_ = detail::larger(slot_bytes_, staged_bytes(round));
    }
    std::size_t const slots = detail::smaller<std::size_t>(2, first_.size() - 1);
    slots_ = Buffer<Space>(slots * slot_bytes_, stream);
    report_.peak_staging_bytes = slots_.size();
    report_.rounds = first_.size() - 1;
  }

  [[nodiscard]] GatherReport run() {
    Stream const side = side_.get();
    order(main_, side);
    for (std::size_t j = 0; j < jobs_.size(); ++j) {
      if (comm_.rank() == jobs_[j].root) {
        ExchangeJob const own{&steps_[j], jobs_[j].dtype, jobs_[j].source, jobs_[j].target,
                              jobs_[j].whole_in_space};
        copy_locals<Space>(own, nullptr, side);
      }
    }
    std::size_t const rounds = first_.size() - 1;
    for (std::size_t round = 0; round < rounds; ++round) {
      Space::wait(side, moved_[round % 2]);
      stage(round, true, side);
      order(side, main_, filled_[round % 2]);
      Space::wait(main_, drained_[round % 2]);
      exchange(round);
      Space::record(moved_[round % 2], main_);
      if (round > 0) {
        drain(round - 1, side);
      }
    }
    if (rounds > 0) {
      drain(rounds - 1, side);
    }
    side.synchronize();
    main_.synchronize();
    return report_;
  }

 private:
  using Event = typename Space::Event;
  struct Tile {
    std::size_t job;
    int sender;
    int receiver;
    std::size_t bytes;
    Transfer transfer;
  };

  void cut_into_rounds(RootDirection direction, std::size_t budget) {
    std::size_t used = budget;  // so that the first tile opens a round
    for (std::size_t j = 0; j < jobs_.size(); ++j) {
      RootJob const& job = jobs_[j];
      std::size_t const element = size_of(job.dtype);
      if (budget < element) {
        throw InvalidArgument("shardmesh::exchange_with_root: a ceiling of " +
                              std::to_string(2 * budget) + " bytes does not hold two elements of " +
                              std::string(to_string(job.dtype)) + "; raise ceiling_bytes");
      }
      steps_.push_back(root_step(direction, job, job.root));
      for (Transfer const& one : gather_ ? steps_.back().receives : steps_.back().sends) {
        for (Transfer const& tile : tiles(one, static_cast<index_t>(budget / element))) {
          std::size_t const bytes = static_cast<std::size_t>(tile.box.volume()) * element;
          if (used + bytes > budget) {
            first_.push_back(tiles_.size());
            used = 0;
          }
          used += bytes;
          tiles_.push_back(
              {j, gather_ ? tile.peer : job.root, gather_ ? job.root : tile.peer, bytes, tile});
        }
      }
    }
    first_.push_back(tiles_.size());
  }

  [[nodiscard]] std::span<Tile const> tiles_of(std::size_t round) const {
    return std::span(tiles_).subspan(first_[round], first_[round + 1] - first_[round]);
  }

  /// Must this rank's end of a tile pass through a slot?
  [[nodiscard]] bool is_staged(Tile const& tile, bool sending) const {
    RootJob const& job = jobs_[tile.job];
    bool const whole = sending != gather_;  // is this end the whole tensor?
    LocalPlace const& place = sending ? tile.transfer.source : tile.transfer.target;
    return (whole && !job.whole_in_space && !Space::host_accessible) ||
           !is_contiguous(tile.transfer.box.extent, place);
  }

  [[nodiscard]] std::size_t staged_bytes(std::size_t round) const {
    std::size_t bytes = 0;
    for (Tile const& tile : tiles_of(round)) {
      bytes += tile.sender == comm_.rank() && is_staged(tile, true) ? tile.bytes : 0;
      bytes += tile.receiver == comm_.rank() && is_staged(tile, false) ? tile.bytes : 0;
    }
    return bytes;
  }

  /// Calls `f(tile, sending, place in the slot)` for this rank's ends of the tiles of a round; the
  /// place is nullptr for an end that travels in place.
  template <class F>
  void for_each_end(std::size_t round, F f) {
    auto* slot = static_cast<std::byte*>(slots_.data()) + (round % 2) * slot_bytes_;
    for (Tile const& tile : tiles_of(round)) {
      for (bool const sending : {true, false}) {
        if ((sending ? tile.sender : tile.receiver) == comm_.rank()) {
          bool const staged = is_staged(tile, sending);
          f(tile, sending, staged ? slot : nullptr);
          slot += staged ? tile.bytes : 0;
        }
      }
    }
  }

  /// Fills the slot with what is to be sent, or empties it of what was received.
  void stage(std::size_t round, bool fill, Stream stream) {
    for_each_end(round, [&](Tile const& tile, bool sending, std::byte* slot) {
      if (sending != fill || slot == nullptr) {
        return;
      }
      RootJob const& job = jobs_[tile.job];
      Shape const& extent = tile.transfer.box.extent;
      std::size_t const bytes = size_of(job.dtype);
      Space::copy(
          fill
              ? copy_between(job.source, tile.transfer.source, slot, packed(extent), extent, bytes)
              : copy_between(slot, packed(extent), job.target, tile.transfer.target, extent, bytes),
          stream);
    });
  }

  void drain(std::size_t round, Stream side) {
    Space::wait(side, moved_[round % 2]);
    stage(round, false, side);
    Space::record(drained_[round % 2], side);
  }

  void exchange(std::size_t round) {
    std::vector<Message> outgoing;
    std::vector<Message> incoming;
    for_each_end(round, [&](Tile const& tile, bool sending, std::byte* slot) {
      RootJob const& job = jobs_[tile.job];
      std::size_t const bytes = size_of(job.dtype);
      if (sending) {
        auto* source = static_cast<std::byte*>(const_cast<void*>(job.source));
        void* const data =
            slot != nullptr ? slot : source + byte_offset(tile.transfer.source, bytes);
        outgoing.push_back({tile.receiver, data, tile.bytes});
        report_.sent_bytes += tile.bytes;
      } else {
        auto* target = static_cast<std::byte*>(job.target);
        void* const data =
            slot != nullptr ? slot : target + byte_offset(tile.transfer.target, bytes);
        incoming.push_back({tile.sender, data, tile.bytes});
        report_.received_bytes += tile.bytes;
      }
    });
    comm_.template exchange<Space>(outgoing, incoming, main_,
                                   Call(operation_, Fingerprint(arguments_).add(round), words_));
  }

  /// What `second` is given from here on follows what `first` has been given.
  static void order(Stream first, Stream second, Event& event) {
    Space::record(event, first);
    Space::wait(second, event);
  }
  void order(Stream first, Stream second) { order(first, second, filled_[0]); }

  Comm const& comm_;
  char const* operation_;
  RootWords words_;
  Fingerprint arguments_;
  std::span<RootJob const> jobs_;
  bool gather_;
  Stream main_;
  std::vector<RankStep> steps_;     // of the root, by job
  std::vector<Tile> tiles_;         // of all ranks, in the order in which they travel
  std::vector<std::size_t> first_;  // tile of each round, and the number of tiles
  std::size_t slot_bytes_ = 0;
  Buffer<Space> slots_;
  typename Space::OwnedStream side_ = Space::make_stream();
  std::array<Event, 2> filled_{Space::make_event(), Space::make_event()};
  std::array<Event, 2> moved_{Space::make_event(), Space::make_event()};
  std::array<Event, 2> drained_{Space::make_event(), Space::make_event()};
  GatherReport report_;
};

/// The same between ranks that share an address space: each owner copies its boxes straight into
/// place, in whatever memory that is. No staging.
template <MemorySpace Space, class Comm>
[[nodiscard]] GatherReport exchange_with_root_shared(Comm const& comm,
                                                     char const* operation,
                                                     RootWords const& words,
                                                     typename Space::Stream stream) {
  GatherReport report;
  report.rounds = 1;
  std::vector<RankStep> steps;
  steps.reserve(words.jobs.size());
  std::vector<ExchangeJob> moves;
  for (RootJob const& job : words.jobs) {
    RankStep const& step = steps.emplace_back(root_step(words.direction, job, comm.rank()));
    moves.push_back({&step, job.dtype, job.source, job.target, job.whole_in_space});
    for (Transfer const& one : step.sends) {
      report.sent_bytes += static_cast<std::size_t>(one.box.volume()) * size_of(job.dtype);
    }
    for (Transfer const& one : step.receives) {
      report.received_bytes += static_cast<std::size_t>(one.box.volume()) * size_of(job.dtype);
    }
  }
  execute<Space>(comm, moves, Call(operation, words.fingerprint(), words), stream);
  stream.synchronize();
  return report;
}

}  // namespace detail

/// Gathers whole tensors to roots, or scatters them from roots, as one pipelined exchange.
///
/// Nobody but a root needs memory for a whole tensor. Where ranks share an address space the owners
/// copy straight into place; elsewhere boxes travel in tiles, through at most `ceiling` bytes of
/// temporary memory on each rank.
///
/// @param operation  a literal, the name that the user called.
/// @param jobs  alike on all ranks but for the addresses; null where a rank has no such tensor.
/// @returns when everything is in place.
/// @throws InvalidArgument, before anything is moved, for a partial tensor or a ceiling below two
///         elements. MismatchError, before anything is moved, if ranks bring different jobs (see
///         `Checks` for NCCL).
/// @collective over `comm`, whose ranks are those of the layouts.
template <MemorySpace Space, Communicator Comm>
GatherReport exchange_with_root(Comm const& comm,
                                char const* operation,
                                RootDirection direction,
                                std::span<RootJob const> jobs,
                                std::size_t ceiling,
                                typename Space::Stream stream = {}) {
  detail::RootWords const words{direction, jobs, ceiling};
  if constexpr (Comm::shared_address_space) {
    return detail::exchange_with_root_shared<Space>(comm, operation, words, stream);
  } else {
    detail::Range const range(operation);
    return detail::RootRounds<Space, Comm>(comm, operation, words, stream).run();
  }
}

}  // namespace v0
}  // namespace shardmesh
