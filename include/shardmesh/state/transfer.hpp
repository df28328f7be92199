// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/mesh/mesh_description.hpp>
#include <shardmesh/plan/moves.hpp>
#include <shardmesh/state/detail/meeting_stream.hpp>
#include <shardmesh/state/detail/wire.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

/// How a state travels to another mesh.
struct TransferOptions {
  /// Most bytes of local parts, before and after, that one exchange may hold: tensors travel in exchanges
  /// of as many as fit, one that is larger on its own.
  std::size_t ceiling_bytes = std::size_t{256} << 20;
};

namespace detail {

/// The exchanges that bring the tensors of one state dict into those of another.
template <Communicator Comm>
class StateTransfer {
 public:
  StateTransfer(Comm const& world, StateDict const& from, StateDict& into)
      : world_(world), from_(from), into_(into) {}

  void run(TransferOptions const& options) {
    std::string problem;
    try {
      find(options);
    } catch (Error const& error) {
      problem = error.what();
    }
    throw_together<InvalidArgument>(
        world_, problem,
        Call("transfer", Fingerprint(arguments_).add(options.ceiling_bytes), words()));
    Words const words = this->words();
    for (Batch const& batch : batches_) {
      std::vector<RankStep> steps;
      steps.reserve(batch.pairs.size());
      std::vector<ExchangeJob> jobs;
      std::vector<AnyTensor const*> tensors;
      for (Pair const& pair : batch.pairs) {
        tensors.push_back(pair.to);
        tensors.push_back(pair.from);
        RankStep const& step = steps.emplace_back(moves(pair.source, pair.target, world_.rank()));
        jobs.push_back({&step, pair.to->dtype(), pair.from->data(), pair.to->data()});
      }
      tensors.front()
          ->ordered_on(meeting_stream(tensors))
          .execute(world_, jobs,
                   Call("transfer", Fingerprint(arguments_).add(batch.pairs.size()), words));
    }
    send_values();
  }

 private:
  struct Pair {
    AnyTensor const* from;
    AnyTensor const* to;
    Holding source;
    Holding target;
  };
  struct Batch {
    std::vector<Pair> pairs;
    std::size_t bytes = 0;
  };
  /// What must be the same on all ranks, for their errors.
  struct Words {
    StateTransfer const* transfer;
    std::string operator()() const { return transfer->text_; }
  };
  [[nodiscard]] Words words() const { return {this}; }

  /// Checks all tensors of `into` and puts them into exchanges.
  void find(TransferOptions const& options) {
    std::vector<int> const numbers = world_.world_ranks();
    std::vector<std::string> missing;
    for (StateEntry const& entry : into_) {
      if (!from_.contains(entry.key)) {
        missing.push_back(entry.key);
        continue;
      }
      StateEntry const& source = from_.at(entry.key);
      if (source.is_tensor() != entry.is_tensor()) {
        fail(entry.key, "is a tensor in one state and a plain value in the other");
      }
      if (entry.is_tensor()) {
        add(entry.key, source.tensor(), entry.tensor(), numbers, options);
      } else {
        arguments_.add(entry.key);
        text_ += concat(" \"", escaped(entry.key), "\";");
      }
    }
    if (!missing.empty()) {
      throw KeyError("shardmesh::transfer: the source has no " + key_list(missing));
    }
  }

  void add(std::string const& key,
           AnyTensor const& from,
           AnyTensor const& to,
           std::vector<int> const& numbers,
           TransferOptions const& options) {
    bool const plain = from.kind() == TensorKind::plain && to.kind() == TensorKind::plain;
    for (AnyTensor const* const one : {&from, &to}) {
      if (!plain && one->kind() != TensorKind::distributed) {
        fail(key, "has a mesh in one state and none in the other; distribute it");
      }
      if (one->layout().has_partial()) {
        fail(key, "is " + to_string(one->layout()) + "; reduce it first");
      }
    }
    if (!(from.shape() == to.shape()) || from.dtype() != to.dtype()) {
      fail(key, concat("is ", to_string(from.dtype()), ' ', to_string(from.shape()),
                       " in the source and ", to_string(to.dtype()), ' ', to_string(to.shape()),
                       " in the target; they must be equal"));
    }
    if (plain) {  // the same on all ranks, as the first one's elements go into everybody's
      arguments_.add(key).add(static_cast<std::uint64_t>(to.dtype()));
      for (index_t const extent : to.shape()) {
        arguments_.add(static_cast<std::uint64_t>(extent));
      }
      text_ += concat(" \"", escaped(key), "\" ", to_string(to.dtype()), ' ', to_string(to.shape()),
                      ';');
      return;
    }
    if (!from.moves_like(to)) {
      fail(
          key,
          "lies in another kind of memory, or has a mesh over another type of communicator, in the "
          "source than in the target");
    }
    Pair pair{&from, &to, holding(from.mesh(), from.layout(), numbers),
              holding(to.mesh(), to.layout(), numbers)};
    for (int const rank : from.mesh().ranks) {
      first_rank_ = rank < first_rank_ ? rank : first_rank_;
    }
    arguments_.add(key)
        .add(static_cast<std::uint64_t>(from.dtype()))
        .add(fingerprint(pair.source).value())
        .add(fingerprint(pair.target).value());
    text_ += concat(" \"", escaped(key), "\" ", to_string(from.dtype()), ' ',
                    to_string(pair.source), " -> ", to_string(pair.target), ';');
    // The first rank of a mesh has the largest part. Every rank makes the same exchanges.
    std::size_t const bytes =
        (largest_part(from.layout()) + largest_part(to.layout())) * size_of(from.dtype());
    for (Batch& batch : batches_) {
      if (batch.pairs.front().to->moves_like(to) && batch.bytes + bytes <= options.ceiling_bytes) {
        batch.bytes += bytes;
        batch.pairs.push_back(std::move(pair));
        return;
      }
    }
    batches_.emplace_back().bytes = bytes;
    batches_.back().pairs.push_back(std::move(pair));
  }

  [[nodiscard]] static std::size_t largest_part(Layout const& layout) {
    return static_cast<std::size_t>(
        volume(layout.local_shape(Coordinate(layout.mesh().size(), 0))));
  }

  /// Does an entry travel as a value: is it one, or a tensor that each rank has whole?
  [[nodiscard]] static bool is_value(StateEntry const& entry) {
    return !entry.is_tensor() || entry.tensor().kind() == TensorKind::plain;
  }

  /// The plain values and tensors of the first rank that holds tensors of the source.
  void send_values() {
    std::vector<StateEntry> values;
    for (StateEntry const& entry : into_) {
      if (is_value(entry)) {
        values.push_back(entry);
      }
    }
    if (values.empty()) {
      return;
    }
    std::vector<int> const numbers = world_.world_ranks();
    auto const first = std::find(numbers.begin(), numbers.end(), first_rank_);
    auto const root = first == numbers.end() ? 0 : first - numbers.begin();
    WireWriter mine;
    if (world_.rank() == root) {
      for (StateEntry const& entry : values) {
        StateEntry const& source = from_.at(entry.key);
        entry.is_tensor() ? mine.block(source.tensor().local_bytes()) : mine.value(source.plain());
      }
    }
    auto const all = world_.all_gather(mine.bytes(), "transfer");
    WireReader reader(all[static_cast<std::size_t>(root)]);
    for (StateEntry const& entry : values) {
      if (entry.is_tensor()) {
        entry.tensor().assign(reader.block());
        continue;
      }
      Value value = reader.value();
      if (!(value ==
            into_.at(entry.key).plain())) {  // names of an optimizer's parameters cannot be set
        into_.set(entry.key, std::move(value));
      }
    }
  }

  [[noreturn]] static void fail(std::string const& key, std::string const& what) {
    throw InvalidArgument(concat("shardmesh::transfer: \"", escaped(key), "\" ", what));
  }

  Comm const& world_;
  StateDict const& from_;
  StateDict& into_;
  std::vector<Batch> batches_;
  int first_rank_ = std::numeric_limits<int>::max();  // of the source, in the numbering of the job
  Fingerprint arguments_;
  std::string text_;
};

}  // namespace detail

/// Brings a state to another mesh: the weights of the ranks that train to those that infer. Overwrites the
/// tensors of `into` by those of `from` with the same keys; its plain values, and small tensors that each rank
/// has whole, by those of the first rank that holds tensors of `from`; what `from` has besides stays behind. Tensors go straight from their
/// holders to their places, as in `transfer` of one tensor, many in one exchange.
///
/// @param world  has the ranks of all meshes. Ranks outside a mesh pass the handles that they have of it, so
///               both dicts have the same keys, in the same order, everywhere.
/// Returns when everything is in place.
/// @throws InvalidArgument on every rank, before anything is moved: keys that `from` lacks; shapes or dtypes
///         that differ; partial tensors; tensors with a mesh on one side alone; different kinds of memory on
///         both sides. MismatchError if ranks bring different states (see `Checks` for NCCL).
/// @collective over `world`.
template <Communicator Comm>
void transfer(Comm const& world,
              StateDict const& from,
              StateDict& into,
              TransferOptions const& options = {}) {
  detail::StateTransfer<Comm>(world, from, into).run(options);
}

}  // namespace v0
}  // namespace shardmesh
