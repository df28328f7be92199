// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/core/key_map.hpp>
#include <shardmesh/memory/convert.hpp>
#include <shardmesh/state/detail/load_check.hpp>
#include <shardmesh/state/detail/load_source.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/options.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Moves what a `LoadCheck` has let pass: first what must be made for it, in temporary memory; then, when
/// all ranks have managed that, everything into its place, which allocates nothing, but where whole
/// tensors are sent by rank 0.
template <Communicator Comm>
class LoadMove {
 public:
  LoadMove(Comm const& comm,
           StateDict& into,
           LoadSources const& sources,
           LoadCheck<Comm>& check,
           StateOptions const& options)
      : comm_(comm), into_(into), sources_(sources), check_(check), options_(options) {
    for (std::string const& key : check.order()) {
      if (into.contains(key) && is_distributed(into.at(key)) && check.loads(key) &&
          into.at(key).tensor().is_member()) {
        distributed_.push_back(key);
      }
    }
  }

  /// @param stage  prepares whatever else is to be changed with it: gets the dict as it will be.
  /// @throws InvalidArgument on every rank if something cannot be converted on one; whoever throws
  ///         anything else lets no other rank through.
  /// @collective over the communicator.
  template <class Stage>
  void prepare(Stage const& stage) {
    std::string problem;
    auto const each = [&](std::string const& key) {
      AnyTensor const& target = into_.at(key).tensor();
      LoadSource const& source = *sources_.by_key.find(key);
      if (source.dtype == target.dtype()) {
        if (target.is_distributed()) {
          ready_part(key, target, source);
        }
        return;
      }
      try {
        convert(key, target, source);
      } catch (InvalidArgument const& error) {
        problem = problem.empty() ? "shardmesh::load_state_dict: \"" + key + "\" cannot become " +
                                        std::string(to_string(target.dtype())) + ": " + error.what()
                                  : problem;
      }
    };
    for (std::string const& key : distributed_) {
      each(key);
    }
    for (StateEntry const& entry : into_) {
      if (entry.is_tensor() && !is_distributed(entry) && check_.number(entry.key) == nullptr &&
          sources_.by_key.find(entry.key) != nullptr) {
        each(entry.key);
      }
    }
    throw_together<InvalidArgument>(comm_, problem);
    next_ = check_.plain().dict_after(into_);
    stage(std::as_const(next_));
    comm_.barrier("load_state_dict");  // whoever comes through has nothing left to do that can fail
  }

  /// @collective over the ranks that hold the distributed tensors.
  GatherReport run() {
    static_assert(std::is_nothrow_move_assignable_v<StateDict>);
    for (StateEntry const& entry : into_) {
      LoadSource const* const source = sources_.by_key.find(entry.key);
      if (auto const* const number = check_.number(entry.key)) {
        entry.tensor().assign(*number);
      } else if (source != nullptr && entry.is_tensor() && !is_distributed(entry)) {
        move_plain(entry.key, entry.tensor(), *source);
      }
    }
    GatherReport report;
    if (options_.broadcast_from_rank0) {
      broadcast(report);
    } else {
      for (std::string const& key : distributed_) {
        move_part(key, into_.at(key).tensor(), *sources_.by_key.find(key));
      }
    }
    check_.plain().apply();
    into_ = std::move(next_);
    return report;
  }

 private:
  [[nodiscard]] static bool is_distributed(StateEntry const& entry) {
    return entry.is_tensor() && entry.tensor().is_distributed();
  }

  /// Cuts this rank's part of `target` out of a whole tensor into `local`.
  static void cut(AnyTensor const& whole,
                  AnyTensor const& target,
                  std::vector<Piece> const& pieces,
                  AnyTensor const& local) {
    std::size_t const bytes = size_of(whole.dtype());
    AnyTensor const& mover = whole.memory() == MemoryKind::cuda ? whole : local;
    if (!(whole.stream() == local.stream())) {
      (&mover == &whole ? local : whole).synchronize();
    }
    for (Piece const& piece : pieces) {
      mover.copy_box(copy_between(whole.data(), {piece.box.offset, whole.shape()}, local.data(),
                                  {piece.local, target.local_shape()}, piece.box.extent, bytes));
    }
  }

  /// What a part of the same dtype needs before it can be put into its place.
  void ready_part(std::string const& key, AnyTensor const& target, LoadSource const& source) {
    if (check_.way(key) == LoadWay::redistribute) {
      converted_.add(key, part_of(key, target, source));
    } else if (check_.way(key) == LoadWay::cut) {
      pieces_.add(key, target.pieces());
    }
  }

  void convert(std::string const& key, AnyTensor const& target, LoadSource const& source) {
    bool const whole = target.is_distributed() && check_.way(key) == LoadWay::broadcast;
    if (whole && source.tensor == nullptr) {
      return;  // rank 0 converts before it sends
    }
    std::vector<std::byte> const from = whole || !target.is_distributed()
                                            ? plain_bytes(source)
                                            : part_of(key, target, source).local_bytes();
    AnyTensor const to = target.on_host(whole ? target.shape() : target.local_shape());
    convert_elements(source.dtype, from.data(), target.dtype(), to.data(),
                     static_cast<std::size_t>(volume(to.shape())));
    converted_.add(key, to);
  }

  /// This rank's part as a plain tensor, in the dtype of the source.
  [[nodiscard]] AnyTensor part_of(std::string const& key,
                                  AnyTensor const& target,
                                  LoadSource const& source) const {
    switch (check_.way(key)) {
      case LoadWay::copy:
        return *source.tensor;
      case LoadWay::redistribute:
        return source.tensor->local_as(target.layout());
      case LoadWay::cut:
      case LoadWay::broadcast:
        break;
    }
    AnyTensor const local = source.tensor->on_host(target.local_shape());
    cut(*source.tensor, target, target.pieces(), local);
    return local;
  }

  [[nodiscard]] static std::vector<std::byte> plain_bytes(LoadSource const& source) {
    return source.tensor != nullptr ? source.tensor->local_bytes() : source.bytes;
  }

  void move_plain(std::string const& key, AnyTensor const& target, LoadSource const& source) {
    if (AnyTensor const* const converted = converted_.find(key)) {
      target.copy_from(*converted);
    } else if (source.tensor != nullptr) {
      target.copy_from(*source.tensor);
    } else {
      target.assign(source.bytes);
    }
  }

  void move_part(std::string const& key, AnyTensor const& target, LoadSource const& source) {
    if (AnyTensor const* const converted = converted_.find(key)) {
      target.copy_from(*converted);
    } else if (check_.way(key) == LoadWay::cut) {
      cut(*source.tensor, target, *pieces_.find(key), target);
    } else {
      target.copy_from(*source.tensor);
    }
  }

  /// Sends whole tensors from rank 0 to the ranks of their group, and from there to other replicas.
  void broadcast(GatherReport& report) {
    std::vector<AnyTensor> targets;
    std::vector<AnyTensor> kept;  // what is sent, alive until it is
    for (std::string const& key : distributed_) {
      targets.push_back(into_.at(key).tensor());
    }
    auto const group_of = [](AnyTensor const& tensor) {
      TensorGroup group = tensor.group();
      return group.first_replica ? group : TensorGroup{};
    };
    for (GroupBatch const& batch : batches_of(targets, group_of)) {
      TensorGroup const& group = batch.group;
      int root = 0;
      while (group.ranks[static_cast<std::size_t>(root)] != sources_.root) {
        ++root;
      }
      std::vector<RootJob> jobs;
      AnyStream const stream = batch.stream(targets);
      for (std::size_t const i : batch.members) {
        void const* whole = nullptr;
        if (root == group.rank) {
          kept.push_back(whole_to_send(distributed_[i], targets[i]));
          whole = kept.back().data();
          if (!(kept.back().stream() == stream)) {
            kept.back().synchronize();
          }
        }
        jobs.push_back({targets[i].layout(), root, targets[i].dtype(), whole, targets[i].data(),
                        false, distributed_[i]});
      }
      report.add(group.exchange(group.comm, "load_state_dict", RootDirection::scatter, jobs,
                                options_.gather.ceiling_bytes, stream));
    }
    for (GroupBatch const& batch :
         batches_of(targets, [](AnyTensor const& tensor) { return tensor.replicas(); })) {
      std::vector<RootJob> jobs;
      for (std::size_t const i : batch.members) {
        Layout const copies(targets[i].local_shape(),
                            Shape{static_cast<index_t>(batch.group.ranks.size())},
                            PlacementList{Replicate{}});
        void* const data = targets[i].data();
        jobs.push_back({copies, 0, targets[i].dtype(), batch.group.rank == 0 ? data : nullptr, data,
                        true, distributed_[i]});
      }
      report.add(batch.group.exchange(batch.group.comm, "load_state_dict", RootDirection::scatter,
                                      jobs, options_.gather.ceiling_bytes, batch.stream(targets)));
    }
  }

  [[nodiscard]] AnyTensor whole_to_send(std::string const& key, AnyTensor const& target) const {
    if (AnyTensor const* const converted = converted_.find(key)) {
      return *converted;
    }
    AnyTensor const& tensor = *sources_.by_key.find(key)->tensor;
    bool const reachable =
        tensor.memory() != MemoryKind::cuda || target.memory() == MemoryKind::cuda;
    return reachable ? tensor : tensor.offloaded();
  }

  Comm const& comm_;
  StateDict& into_;
  LoadSources const& sources_;
  LoadCheck<Comm>& check_;
  StateOptions const& options_;
  std::vector<std::string> distributed_;
  KeyMap<AnyTensor> converted_;  // and redistributed
  KeyMap<std::vector<Piece>> pieces_;
  StateDict next_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
